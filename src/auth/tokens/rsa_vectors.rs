//! Tokens that another program (OpenSSL) has signed with an RSA key that nobody has any more.

/// The public key.
pub(super) const PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAiiQyEGsB+BL8q8h33nKo\n\
UY6k/CtyVA1N6tZBJQH+BNLtM621mpSC8S11p1jnphLNssy8EmH1/5d23DkcbhM/\n\
0mftt0TUreG52n5dtRPtGYovoExDyUwnKx30uCHRJu5B5cIW/JO5KguahhhP26hl\n\
l50TWjkEXGElX/M3gEdHfrbltMSnitCt/DzS1J53h6W3PwxipsWL4zuSuMqc+8pW\n\
UekXeUnHUn3Y/bxkYlOwCQa3fnREoA15jgtY8rJpK3LU9ItezpyX9zPl+wdFb3iY\n\
/rW/w0MtRHIAKTB2LSgDwvToJwHolRShVgvvrNvnQarH1Md1VARzu7HGhjDxkzZ0\n\
rQIDAQAB\n\
-----END PUBLIC KEY-----\n";

/// The claims of all of them: issuer a, audience api, role web, until 2100.
pub(super) const CLAIMS: &str = "\
    eyJpc3MiOiJhIiwic3ViIjoidXNlci0xIiwiYXVkIjoiYXBpIiwicm9sZSI6IndlYiIsImlhdCI6MTcwMDAw\
    MDAwMCwiZXhwIjo0MTAyNDQ0ODAwfQ";

/// Algorithm and signature, over the header `{"alg":…,"kid":"p"}` and the claims.
pub(super) const SIGNATURES: [(&str, &str); 6] = [
    (
        "RS256",
        "Dut5Bc8IC4b51rZD7GX9V5UFZAQw-mfOHUlY7XQXb1TC954sCHN8lBVv2se85pUWIaROrLqBPpLU0upCWZ31\
         E241TmKCaNHrWzGYUBLyqgkLOr7Yv51Y13t4PAOurFA12AZrOr2sSJeRBYjCYw9uHxD1C0PGr-r-9V20oeF_\
         OI2LpQEPn3oU-GvvaBp1vyBucyyoZaB32mvYHrbFG7dmco7hysD48UvBzHNajSpz07pCfCqIuIRf4mCb9I8f\
         3gsyr1B6E7_oJWNV3RcmCYR1Rf_XPBBF5T8janbm1fURBpSo4bH77zAEpXArr_DZ5CUJczv5RlNPImUJjBH1\
         FE8MuA",
    ),
    (
        "RS384",
        "HpVWgBMiSyWnoZUrrWX-WvP75Sdw6QHgmsoaaYr-JpDAsOJYya9RT7kvmD0WQWHqCie8VGtd54fq20x9WBh2\
         epfATZKYcGAp6uMCqCOkwKd2kqSghKUECP3aq7TA-PM-Kow3pbceyOINj4aq7tAJ838cMTIYmHoho4BZSNqv\
         8THcd_Sv6wPK7_lzjNYmN9zXQmb0q40X5P-A__GQv2Epwdi65iAjQ1Sv1hWTT3n4D62ERgidFCYb39mNZsyC\
         gaSxJf7Bj16neUrjEAh0tXcwR6chrfhlhUHUf8Sdp_TRtze0UwGTq7IhuU2MPg0C4j6cSJEGOWr8Lpgu3YIl\
         q-G-yA",
    ),
    (
        "RS512",
        "Ptf-U5fUBl01vfxZBr0xaqw4tnjP_GZ8eZQ1Q8aSyxWthZ-96FWZU0bfigXcBBEEzZP4hIrxQ1BJQQzEBEYn\
         ju_x5WQXKGXl8TyydLBOFg_s9HNuSLzvYuQKrl6oFGr2UiplsXl_JnJ1_6DEsXWi26qYsZlbR87li3T0m54f\
         0l5w-Aqm_dG20HuD3P1eq3z-vLwsoe9ceRPF0qsY8Abgn-A-SU2VuZBo5AHxL6uCekHomd5GP8uk7xxa7BFz\
         wENZyCOWVkAk35FP-Ts3olL5C3bQ0NmV40SW_mXPJI4JeppAF0sSGSrONaY1gPaAKi6cT6DAPHRY_845r6cV\
         Adz_ig",
    ),
    (
        "PS256",
        "fS3uNbk9PZy6784ct9aIiZD4x_psNh9hfyz2D6JzItBYePaO7is0xHn9pbV-zwBx0NrZbImuwVoD__xbQp47\
         sdwClORG5v72nf8lEsgQ_k6GHNfuKMdZYk_Sndxf7ama8c272Z_lmjEQH00J01MAJMr7JRP4I9Y9aTwob9C_\
         1k96Y4U-c5S9sAaAeJFq7yYV2rcf_5Oks7CaPZ5mTTVJoSTjqG0m0TsccX3VPUloKxNME19aCnBMzczzo0PF\
         50pkPQCFP3OIKJhypsPqeIZ4UFs0MTOt0_9DdQiuE1ehzVkcdRpZ9WfFTrjD9ChPARNxq9vFimIzrVEpzwFq\
         OzB51A",
    ),
    (
        "PS384",
        "hUYQkcgm4nUIa2GNJnSH7h915mm-KVKv-R_tyz9mM1hyhMk6agyTprD7qjcP3qN_cscgpPiukzYz-FkQNS7a\
         7S1Ey8xwRKdWBp_zYGUzx1lWBg60frjxHuuukixg-rCBmCCtm3gsshaDyigj5sS738pipZyDjP7LP5jXOCKV\
         tPFt8Wxp6X0LiT8Hl21gSVAl8tQvfT91Way07zYmLpJn2mMNrbtyQDqhk6t-_-1wIr7vLTeFtpp1xF0M4Dpe\
         CY0Io7deQkAw1J6NN15NZi1OHOpm_jTMwdya3EW8XcsWFrsBDQLzmJ5Xt5R6Qk0N_6FRGj_-IgZWWz68hesb\
         1Qa1QA",
    ),
    (
        "PS512",
        "PDB3JW7L36CAg4cqSxrCQVSxRUYJIZ7QNHj9AI-GiReBOSiRlK5uwt9qw8HPnTHm9vcsewAdOruZ7C5UNB1Y\
         m7DEPmVzIgDiKLr71K2HyfQwP467emNldJZ6QCdpM_3l8euGoH6U-E0-64B6p3fhWcqYTXMxG077LqPnL8tv\
         OeCbxAgzTDmZ7EUOTDJsxsFJ8h853OkUqfz2f_97bGs58fBeYDzspoxuhSCk8PSiuK_Za4woJ6BevopcZSNf\
         mBEzeHL3wpq3bXfbn-QSD6LpYQHFcKa2epGKlhQJVVfxcbsTFVqDW-HQBqNOcR_oerYBXc2Y_kajtYswME1P\
         EtmYOw",
    ),
];
