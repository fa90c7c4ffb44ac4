//! Log-ins: SCRAM with PostgreSQL's own verifiers, and who is refused how.

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use rustydb_client::protocol::*;

use crate::client::{Wire, hello, start};
use crate::{guarded, open};

/// Logs in by SCRAM; the error if it fails.
fn scram(wire: &mut Wire, user: &str, password: &str) -> Result<Vec<String>, Box<ErrorBody>> {
    let begin = Message::Auth(Auth::Start(Box::new(start(user, AuthMethod::ScramSha256))));
    wire.send(2, 0, &begin);
    let mut exchange = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let (mechanism, data) = (SCRAM_SHA_256.to_owned(), exchange.message().to_vec());
    wire.send(2, 0, &Message::Auth(Auth::SaslInitial { mechanism, data }));
    loop {
        let reply = wire.read();
        assert_eq!(reply.header.message_id, 2);
        match reply.message {
            Message::AuthReply(AuthReply::SaslContinue { data }) => {
                exchange.update(&data).unwrap();
                let data = exchange.message().to_vec();
                wire.send(2, 0, &Message::Auth(Auth::SaslResponse { data }));
            }
            Message::AuthReply(AuthReply::SaslFinal { data }) => exchange.finish(&data).unwrap(),
            Message::AuthReply(AuthReply::Success { roles, .. }) => return Ok(roles),
            Message::Error(error) => {
                assert!(wire.try_read().is_none());
                return Err(error);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn greeted() -> Wire {
    let mut wire = Wire::connect(guarded());
    wire.handshake(hello());
    wire
}

#[test]
fn scram_with_the_right_and_the_wrong_password() {
    let server = guarded();
    assert!(scram(&mut greeted(), "rustydb", &server.password).is_ok());
    let wrong = scram(&mut greeted(), "rustydb", "wrong").unwrap_err();
    let unknown = scram(&mut greeted(), "nobody_here", "wrong").unwrap_err();
    for (error, user) in [(&wrong, "rustydb"), (&unknown, "nobody_here")] {
        assert_eq!((error.sqlstate.as_str(), error.severity), ("28P01", Severity::Fatal));
        assert_eq!(error.code, "AUTHENTICATION_FAILED");
        let text = format!("password authentication failed for user \"{user}\"");
        assert_eq!(error.message, text);
    }
}

#[test]
fn roles_of_a_user_are_told() {
    let server = guarded();
    let sql =
        "CREATE ROLE analyst; CREATE ROLE native_alice LOGIN PASSWORD 'secret' IN ROLE analyst;
               GRANT CONNECT ON DATABASE rustydb TO native_alice";
    assert_eq!(server.psql(sql).code, Some(0));
    let mut wire = greeted();
    assert_eq!(scram(&mut wire, "native_alice", "secret").unwrap(), ["analyst"]);
    let rows = wire.rows("SELECT current_user, session_user", vec![]);
    assert_eq!(rows, [[Value::Text("native_alice".into()), Value::Text("native_alice".into())]]);
    let mut wire = greeted();
    let mut other = start("native_alice", AuthMethod::ScramSha256);
    other.database = "no_such_database".into();
    drop(other);
    assert!(scram(&mut wire, "native_alice", "wrong").is_err());
}

#[test]
fn methods_that_do_not_exist_are_refused_as_that() {
    for method in [AuthMethod::Kerberos, AuthMethod::Ldap, AuthMethod::Saml] {
        let mut wire = greeted();
        wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(start("rustydb", method)))));
        let error = wire.fatal();
        assert_eq!(error.sqlstate, "28000", "{method:?}");
    }
}

#[test]
fn an_open_server_believes_whoever_wants_to_prove_itself() {
    let mut wire = Wire::connect(open());
    assert_eq!(wire.handshake(hello()).auth_methods, [AuthMethod::Trust]);
    assert!(scram(&mut wire, "rustydb", "whatever").is_ok());
}

#[test]
fn start_up_settings_are_checked() {
    for (name, value) in
        [("replication", "true"), ("user", "x"), ("client_encoding", "LATIN1"), ("a\0b", "x")]
    {
        let mut wire = Wire::connect(open());
        wire.handshake(hello());
        let mut bad = start("rustydb", AuthMethod::Trust);
        bad.parameters = vec![(name.into(), value.into())];
        wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(bad))));
        assert_eq!(wire.fatal().sqlstate, "22023", "{name}");
    }
    let mut wire = Wire::connect(open());
    wire.handshake(hello());
    let mut bad = start("rustydb", AuthMethod::Trust);
    bad.database = "no_such_database".into();
    wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(bad))));
    assert_eq!(wire.fatal().sqlstate, "3D000");
}

/// A request of `user` to the HTTP door; the answer as JSON.
fn over_http(path: &str, user: Option<(&str, &str)>, body: serde_json::Value) -> serde_json::Value {
    use base64::Engine;
    let mut request = ureq::post(guarded().url(path)).header("content-type", "application/json");
    if let Some((user, password)) = user {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        request = request.header("authorization", format!("Basic {pair}"));
    }
    let mut response = request.send(body.to_string()).unwrap();
    serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap()
}

#[test]
fn a_token_or_a_key_names_the_role() {
    let sql = "CREATE ROLE native_bob LOGIN PASSWORD 'bob-secret'";
    assert_eq!(guarded().psql(sql).code, Some(0));
    let bob = ("native_bob", "bob-secret");
    let login = serde_json::json!({ "username": bob.0, "password": bob.1 });
    let token = over_http("/api/v1/auth/login", None, login)["access_token"].clone();
    let token = token.as_str().unwrap().to_owned();
    let key = |permissions: &[&str]| {
        let new = serde_json::json!({ "name": "native", "permissions": permissions });
        let made = over_http("/api/v1/auth/api-keys", Some(bob), new);
        made["key"].as_str().unwrap().to_owned()
    };
    let attempt = |user: &str, method: AuthMethod, secret: &str| {
        let mut wire = Wire::connect(guarded());
        let offered = wire.handshake(hello()).auth_methods;
        assert!(offered.contains(&AuthMethod::Token) && offered.contains(&AuthMethod::ApiKey));
        let mut begin = start(user, method);
        begin.database = "rustydb".into();
        wire.send(2, 0, &Message::Auth(Auth::Start(Box::new(begin))));
        let secret = secret.to_owned();
        let auth = match method {
            AuthMethod::Token => Auth::Token { token: secret },
            _ => Auth::ApiKey { key: secret },
        };
        wire.send(2, 0, &Message::Auth(auth));
        wire
    };
    let good = [
        ("", AuthMethod::Token, token.clone()),
        ("", AuthMethod::ApiKey, key(&[])),
        ("native_bob", AuthMethod::ApiKey, key(&["execute:queries"])),
    ];
    for (user, method, secret) in good {
        let mut wire = attempt(user, method, &secret);
        let reply = wire.read().message;
        assert!(
            matches!(reply, Message::AuthReply(AuthReply::Success { ref user, .. })
            if user == "native_bob"),
            "{reply:?}"
        );
        let rows = wire.rows("SELECT session_user", vec![]);
        assert_eq!(rows, [[Value::Text("native_bob".into())]]);
    }
    let forged = format!("{}x", &token[..token.len() - 1]);
    for (user, method, secret, sqlstate) in [
        ("rustydb", AuthMethod::Token, token.clone(), "28"),
        ("", AuthMethod::Token, forged, "28"),
        ("", AuthMethod::Token, "nonsense".into(), "28"),
        ("", AuthMethod::ApiKey, "sk_live_nothing".into(), "28"),
        ("", AuthMethod::ApiKey, key(&["read:tables"]), "42501"),
    ] {
        let error = attempt(user, method, &secret).fatal();
        assert!(error.sqlstate.starts_with(sqlstate), "{error:?}");
    }
}
