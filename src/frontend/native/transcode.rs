//! Bodies in another form than bincode, which everything within is made for.

use std::borrow::Cow;

use super::errors;
use crate::proto::native::codec::outline;
use crate::proto::native::{Encoding, ErrorBody, encode};

/// A body in bincode. Of one that is too large only what it begins with: who reads it whole later
/// says so to its sender.
///
/// # Errors
/// There is no message in it; the connection cannot go on.
pub(super) fn in_bincode(encoding: Encoding, body: &[u8]) -> Result<Cow<'_, [u8]>, Box<ErrorBody>> {
    if encoding == Encoding::Bincode {
        return Ok(Cow::Borrowed(body));
    }
    match encoding.decode(body) {
        Ok(message) => {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            Ok(Cow::Owned(bytes))
        }
        Err(refused) if refused.is_fatal() => Err(errors::of_violation(refused)),
        Err(_) => Ok(Cow::Owned(outline(encoding, body))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_still_known() {
        let nulls = r#"["Null","Null","Null","Null","Null","Null","Null","Null","Null","Null"],"#;
        let rows = nulls.repeat(200_000);
        let body = format!(r#"{{"BulkInsert":{{"Rows":{{"sequence":0,"rows":[{rows}"#);
        assert_eq!(in_bincode(Encoding::Json, body.as_bytes()).unwrap().as_ref(), [7, 1]);
        assert_eq!(in_bincode(Encoding::Json, b"\"Ping\"").unwrap().as_ref(), [16]);
        assert_eq!(in_bincode(Encoding::Bincode, b"anything").unwrap().as_ref(), b"anything");
        assert_eq!(in_bincode(Encoding::Json, b"\x10").unwrap_err().sqlstate, "08P01");
    }
}
