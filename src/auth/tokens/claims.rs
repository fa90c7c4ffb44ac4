//! What a token says, and whether that is good enough. Its signature has been verified before.

use serde::Deserialize;
use serde_json::{Number, Value};

use super::jws::Fault;

/// The registered claims (RFC 7519, 4.1). A claim of another type is a fault, not an absent claim.
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// Who issued it.
    pub iss: String,
    /// Whom it is about.
    pub sub: String,
    #[serde(default)]
    aud: Audience,
    exp: Number,
    iat: Number,
    nbf: Option<Number>,
    /// Its number.
    pub jti: Option<String>,
    /// The log-in that it comes from; RustyDB's own tokens have it.
    pub sid: Option<String>,
    /// The role's number; RustyDB's own tokens have it.
    pub oid: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audience {
    fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// The claim that chooses the issuer, before anything is verified.
///
/// # Errors
/// It is not there.
pub fn issuer_of(payload: &str) -> Result<String, Fault> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let issuer: Issuer =
        serde_json::from_str(payload).map_err(|_| "it does not say who issued it (iss)")?;
    Ok(issuer.iss)
}

impl Claims {
    /// Reads the claims.
    ///
    /// # Errors
    /// A claim that must be there is missing, or one is of the wrong type.
    pub fn of(payload: &str) -> Result<Self, Fault> {
        serde_json::from_str(payload)
            .map_err(|_| "it needs the claims iss, sub, exp and iat, each of its type")
    }

    /// Checks times and audience; `now` in seconds since 1970. Returns when it expires.
    ///
    /// # Errors
    /// Which of them is wrong.
    pub fn check(&self, audience: &[String], leeway: u32, now: u64) -> Result<u64, Fault> {
        let (now, leeway) = (now as f64, f64::from(leeway));
        let exp = seconds(&self.exp)?;
        if now >= exp + leeway {
            return Err("it has expired");
        }
        let not_before = self.nbf.as_ref().map(seconds).transpose()?;
        if not_before.is_some_and(|nbf| now + leeway < nbf) {
            return Err("it is not valid yet");
        }
        if now + leeway < seconds(&self.iat)? {
            return Err("it was issued in the future");
        }
        if !self.aud.names().iter().any(|name| audience.contains(name)) {
            return Err("it is for somebody else (aud)");
        }
        if self.sub.is_empty() || self.sub.len() > 1024 {
            return Err("its subject is empty or too long");
        }
        // Beyond the year 10000 there is no difference; a cast of a large number saturates.
        Ok((exp + leeway) as u64)
    }
}

fn seconds(number: &Number) -> Result<f64, Fault> {
    number.as_f64().filter(|n| n.is_finite() && *n >= 0.0).ok_or("it has an impossible time")
}

/// The role that the claims name at `path`: a name, or a path such as `$.app.role`. `None` = there
/// is no such claim.
///
/// # Errors
/// It is no text, or no name that a role can have.
pub fn role_at(payload: &str, path: &str) -> Result<Option<String>, Fault> {
    let claims: Value = serde_json::from_str(payload).map_err(|_| "it is malformed")?;
    let mut at = &claims;
    let parts: Vec<&str> = match path.strip_prefix("$.") {
        Some(path) => path.split('.').collect(),
        None => vec![path],
    };
    for part in parts {
        match at.get(part) {
            Some(inner) => at = inner,
            None => return Ok(None),
        }
    }
    match at {
        Value::Null => Ok(None),
        Value::String(name) if !name.is_empty() && name.len() < 64 && !name.contains('\0') => {
            Ok(Some(name.clone()))
        }
        _ => Err("the claim of its role is no name of a role"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn check(json: &str) -> Result<u64, Fault> {
        let json = json.replace("NOW", &NOW.to_string());
        Claims::of(&json)?.check(&["api".into(), "web".into()], 60, NOW)
    }

    #[test]
    fn times_and_audience_must_fit() {
        let base = r#"{"iss":"i","sub":"s","aud":"api","iat":NOW"#;
        let with = |rest: &str| check(&format!("{base},{rest}}}"));
        assert_eq!(with(r#""exp":1800000100"#), Ok(NOW + 160));
        assert_eq!(with(r#""exp":1799999941.5"#), Ok(NOW + 1));
        assert_eq!(with(r#""exp":1e300"#), Ok(u64::MAX));
        for (rest, fault) in [
            (r#""exp":1799999940"#, "it has expired"),
            (r#""exp":0"#, "it has expired"),
            (r#""exp":-1"#, "it has an impossible time"),
            (r#""exp":1800000100,"nbf":1800000061"#, "it is not valid yet"),
        ] {
            assert_eq!(with(rest), Err(fault), "{rest}");
        }
        assert!(with(r#""exp":1800000100,"nbf":1800000060"#).is_ok());
        // A claim of the wrong type does not count as absent.
        for rest in [
            r#""exp":"1800000100""#,
            r#""exp":null"#,
            r#""exp":1800000100,"nbf":"soon""#,
            r#""exp":1800000100,"exp":1900000000"#,
            r#""nbf":0"#,
        ] {
            assert!(with(rest).is_err(), "{rest}");
        }
        let future = r#"{"iss":"i","sub":"s","aud":"api","iat":1800000061,"exp":1800000100}"#;
        assert_eq!(check(future), Err("it was issued in the future"));
        for (aud, ok) in [
            (r#""web""#, true),
            (r#"["x","web"]"#, true),
            (r#""x""#, false),
            ("[]", false),
            (r#""""#, false),
        ] {
            let json = format!(r#"{{"iss":"i","sub":"s","iat":NOW,"exp":1900000000,"aud":{aud}}}"#);
            assert_eq!(check(&json).is_ok(), ok, "{aud}");
        }
        assert!(check(r#"{"iss":"i","sub":"s","iat":NOW,"exp":1900000000}"#).is_err());
        assert!(check(r#"{"iss":"i","aud":"api","iat":NOW,"exp":1900000000}"#).is_err());
        assert!(check(r#"{"iss":"i","sub":"","aud":"api","iat":NOW,"exp":1900000000}"#).is_err());
        assert!(check(r#"{"iss":"i","sub":"s","aud":"api","exp":1900000000}"#).is_err());
    }

    #[test]
    fn the_role_is_found_by_its_path() {
        let json = r#"{"role":"web","app":{"role":"in","n":1,"x":null},"a.b":"dot"}"#;
        for (path, role) in [
            ("role", Ok(Some("web"))),
            ("$.role", Ok(Some("web"))),
            ("$.app.role", Ok(Some("in"))),
            ("a.b", Ok(Some("dot"))),
            ("$.app.missing", Ok(None)),
            ("$.app.x", Ok(None)),
            ("$.role.deeper", Ok(None)),
            ("$.app.n", Err("the claim of its role is no name of a role")),
            ("app", Err("the claim of its role is no name of a role")),
        ] {
            assert_eq!(role_at(json, path), role.map(|r: Option<&str>| r.map(String::from)));
        }
        assert!(role_at(&format!("{{\"role\":\"{}\"}}", "x".repeat(64)), "role").is_err());
        assert!(role_at(r#"{"role":"a\u0000b"}"#, "role").is_err());
    }
}
