//! The pages that describe the API to people.

use std::io::Read;
use std::process::Command;

use crate::api::Api;
use crate::harness::Server;
use crate::harness::shared::guarded;
use crate::installed::{self, Language};

/// What stands behind `src="` and `href="`.
fn references(html: &str) -> Vec<&str> {
    let parts = html.split("src=\"").skip(1).chain(html.split("href=\"").skip(1));
    parts.filter_map(|part| part.split('"').next()).collect()
}

/// Fails unless the script can be read; nobody looks where there is no node.
fn check_script(script: &[u8]) {
    if installed::find("postgrest_js", Language::Node).is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("script.js");
    std::fs::write(&path, script).unwrap();
    let checked = Command::new("node").arg("--check").arg(&path).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn pages_have_what_they_need_here() {
    let nobody = Api::nobody(guarded());
    for (page, files) in [("/swagger-ui/", 4), ("/redoc/", 3)] {
        let answer = nobody.get(page);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, "text/html; charset=utf-8")
        );
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        let found = references(&answer.text);
        assert_eq!(found.len(), files, "{found:?}");
        for name in found.into_iter().filter(|name| *name != "data:,") {
            assert!(!name.contains('/'), "{name} is not beside {page}");
            let path = format!("{page}{name}");
            let plain = nobody.get(&path);
            assert_eq!(plain.status, 200, "{path}");
            assert_eq!(plain.header("x-content-type-options"), "nosniff");
            assert_eq!(plain.header("content-encoding"), "");
            if name.ends_with(".js") {
                check_script(&plain.bytes);
            }
            let zipped = nobody.send("GET", &path, &[("accept-encoding", "gzip")], b"");
            if zipped.header("content-encoding") == "gzip" {
                let mut text = Vec::new();
                let mut reader = flate2::read::GzDecoder::new(zipped.bytes.as_slice());
                reader.read_to_end(&mut text).unwrap();
                assert!(text == plain.bytes, "{path}");
            }
        }
        // Without the slash the names would be those of other files.
        let bare = page.trim_end_matches('/');
        assert_eq!(nobody.get(bare).text, answer.text);
        nobody.get(&format!("{page}nothing.js")).refused(404, "NOT_FOUND");
    }
}

#[test]
fn the_description_can_be_switched_off() {
    let server = Server::builder().set("api.enable_swagger=false").start();
    let nobody = Api::nobody(&server);
    for path in ["/swagger-ui/", "/redoc/", "/redoc/start.js", "/api/v1/openapi.json"] {
        nobody.get(path).refused(404, "NOT_FOUND");
    }
}
