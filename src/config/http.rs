//! Values that only keys of the HTTP door have, and what they must satisfy.

use toml::Value as Toml;

use super::{Config, Value};

/// How answers may be compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encodings {
    /// RFC 1952.
    pub gzip: bool,
    /// RFC 7932.
    pub br: bool,
    /// RFC 8878.
    pub zstd: bool,
}

impl Default for Encodings {
    fn default() -> Self {
        Self { gzip: true, br: true, zstd: true }
    }
}

impl Value for Encodings {
    fn read(raw: &Toml) -> Result<Self, String> {
        let mut known = Self { gzip: false, br: false, zstd: false };
        for word in Vec::<String>::read(raw)? {
            match word.as_str() {
                "gzip" => known.gzip = true,
                "br" => known.br = true,
                "zstd" => known.zstd = true,
                "none" => {}
                _ => return Err("a list of gzip, br, zstd, or \"none\"".into()),
            }
        }
        Ok(known)
    }

    fn write(&self) -> Toml {
        let words = [("gzip", self.gzip), ("br", self.br), ("zstd", self.zstd)];
        let on = words.into_iter().filter(|(_, is_on)| *is_on);
        Toml::Array(on.map(|(word, _)| Toml::String(word.into())).collect())
    }
}

/// Whether a text is an origin as browsers send it: scheme and host, perhaps a port.
fn is_origin(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
}

impl Config {
    pub(super) fn check_http(&self, check: &mut impl FnMut(bool, &'static str, &str)) {
        let api = &self.api;
        let everybody = api.cors_origins.iter().any(|origin| origin == "*");
        check(
            !everybody || !api.cors_credentials,
            "api.cors_origins",
            "must not be \"*\" while cors_credentials is true: any page could act for its visitor",
        );
        for origin in api.cors_origins.iter().filter(|origin| *origin != "*") {
            let text = format!("\"{origin}\" is not an origin such as https://app.example.com");
            check(is_origin(origin), "api.cors_origins", &text);
        }
        check(api.cors_origins.len() <= 100, "api.cors_origins", "must have at most 100 entries");
        check(api.rate_limit_rps != Some(0), "api.rate_limit_rps", "must be at least 1");
        let one = "must be at least 1";
        check(api.http2_max_streams > 0, "api.http2_max_streams", one);
        check(api.keep_alive_secs.0 > 0, "api.keep_alive_secs", one);
        check(api.stall_timeout_secs.0 > 0, "api.stall_timeout_secs", one);
        check(api.idempotency_ttl_secs.0 > 0, "api.idempotency_ttl_secs", "must be at least 1");
        let a_day = 0..=86_400;
        let fits = a_day.contains(&api.cors_max_age_secs.0);
        check(fits, "api.cors_max_age_secs", "must be at most a day, 86400");
        let fits = api.idempotency_ttl_secs.0 <= 86_400;
        check(fits, "api.idempotency_ttl_secs", "must be at most a day, 86400");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Flag, Inputs};

    fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
        let flag = |(path, value): &(&str, &str)| Flag {
            name: "--set".into(),
            path: (*path).into(),
            value: (*value).into(),
        };
        let inputs = Inputs { flags: pairs.iter().map(flag).collect(), ..Inputs::default() };
        inputs.load().map(|loaded| loaded.config).map_err(|e| e.to_string())
    }

    #[test]
    fn every_page_may_do_nothing_with_cookies() {
        let everybody = ("api.cors_origins", "*");
        assert!(load(&[everybody]).unwrap_err().contains("cors_credentials"));
        assert!(load(&[everybody, ("api.cors_credentials", "false")]).is_ok());
        assert!(load(&[("api.cors_origins", "http://localhost:3000,https://a.b")]).is_ok());
        for wrong in ["localhost", "https://a.b/", "https://A.b", "ftp://a.b", "null"] {
            let error = load(&[("api.cors_origins", wrong)]).unwrap_err();
            assert!(error.contains("is not an origin"), "{error}");
        }
    }

    #[test]
    fn the_short_form_of_the_rate() {
        let rates = load(&[("api.rate_limit_rps", "7")]).unwrap().rate_limit;
        assert_eq!((rates.requests, rates.window_secs.0, rates.burst), (7, 1, 14));
        assert_eq!(load(&[]).unwrap().rate_limit.burst, 200);
    }

    #[test]
    fn encodings_are_words() {
        let of = |text| load(&[("api.compression", text)]).map(|config| config.api.compression);
        let none = of("none").unwrap();
        assert!(!none.gzip && !none.br && !none.zstd);
        assert!(of("br").unwrap().br && !of("br").unwrap().gzip);
        assert!(of("lzma").unwrap_err().contains("gzip, br, zstd"));
    }
}
