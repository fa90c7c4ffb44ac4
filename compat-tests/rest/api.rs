//! A client of the API.

use std::io::Read;
use std::time::Duration;

use base64::Engine;
use serde_json::Value;

use crate::harness::Server;
use crate::harness::shared::guarded;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub bytes: Vec<u8>,
    /// The same as text.
    pub text: String,
    /// The text as JSON, else null.
    pub json: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Fails unless the status is this; gives the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json
    }

    /// Fails unless it is this error in the one shape.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) {
        let error = self.json["error"].clone();
        assert_eq!((self.status, &error["code"]), (status, &code.into()), "{}", self.text);
        for field in ["message", "details", "sqlstate", "request_id", "timestamp"] {
            assert!(!error[field].is_null(), "{field} is missing: {}", self.text);
        }
    }
}

/// Somebody who asks.
pub struct Api<'a> {
    server: &'a Server,
    authorization: Option<String>,
}

impl<'a> Api<'a> {
    pub fn of(server: &'a Server, user: &str, password: &str) -> Self {
        let pair = format!("{user}:{password}");
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        Self { server, authorization: Some(format!("Basic {encoded}")) }
    }

    pub fn authorization(&self) -> &str {
        self.authorization.as_deref().unwrap_or_default()
    }

    pub fn nobody(server: &'a Server) -> Self {
        Self { server, authorization: None }
    }

    /// A request with these headers besides. What reads rows below `/rest/v1` is asked again and
    /// again, so that the answer is also that of a request whose shape is known.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        if method == "GET" && path.starts_with("/rest/v1/") {
            (0..2).for_each(|_| drop(self.once(method, path, headers, body)));
        }
        self.once(method, path, headers, body)
    }

    /// A request that comes once.
    pub fn once(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let limit = Some(Duration::from_secs(60));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(limit)
            .allow_non_standard_methods(true);
        let agent: ureq::Agent = config.build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(self.server.url(path));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = match body.is_empty() {
            true => agent.run(request.body(()).unwrap()).unwrap(),
            false => agent.run(request.body(body).unwrap()).unwrap(),
        };
        let mut bytes = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        let headers = response.headers().clone();
        Answer { status: response.status().as_u16(), headers, bytes, text, json }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.with("POST", path, body)
    }

    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.with("PUT", path, body)
    }

    /// The rows of a statement that must succeed.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> Value {
        let answer = self.post("/api/v1/query", serde_json::json!({ "sql": sql }));
        answer.expect(200)["rows"].clone()
    }

    fn with(&self, method: &str, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, body.to_string().as_bytes())
    }
}

/// A role of this name, made now, as a client.
pub fn role(name: &str) -> Api<'static> {
    let password = format!("{name}-pass");
    admin().sql(&format!("create role {name} login password '{password}'"));
    Api::of(guarded(), name, &password)
}

/// The administrator.
pub fn admin() -> Api<'static> {
    let server = guarded();
    Api::of(server, "rustydb", &server.password)
}
