//! `/swagger-ui/` and `/redoc/`: the description of the API for people. Everything that the pages
//! need is in the binary (`pages/`, made by `scripts/vendor-api-docs`); they work without network.

use std::io::Read;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use flate2::read::GzDecoder;

use super::super::HttpDoor;
use super::super::error;
use super::Routes;
use crate::error::{Error, ErrorKind};

/// What the pages may load: what this server has, the pictures within their style sheets, and the
/// worker that ReDoc searches with. Both make styles as they go.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src blob:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of a page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: Content,
}

enum Content {
    Plain(&'static str),
    Gzip(&'static [u8]),
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const ASSETS: [Asset; 7] = [
    Asset {
        path: "swagger-ui/",
        content_type: HTML,
        content: Content::Plain(include_str!("../pages/swagger-ui.html")),
    },
    Asset {
        path: "swagger-ui/start.js",
        content_type: SCRIPT,
        content: Content::Plain(include_str!("../pages/swagger-ui.js")),
    },
    Asset {
        path: "swagger-ui/swagger-ui-bundle.js",
        content_type: SCRIPT,
        content: Content::Gzip(include_bytes!("../pages/swagger-ui-bundle.js.gz")),
    },
    Asset {
        path: "swagger-ui/swagger-ui.css",
        content_type: STYLE,
        content: Content::Gzip(include_bytes!("../pages/swagger-ui.css.gz")),
    },
    Asset {
        path: "redoc/",
        content_type: HTML,
        content: Content::Plain(include_str!("../pages/redoc.html")),
    },
    Asset {
        path: "redoc/start.js",
        content_type: SCRIPT,
        content: Content::Plain(include_str!("../pages/redoc.js")),
    },
    Asset {
        path: "redoc/redoc.standalone.js",
        content_type: SCRIPT,
        content: Content::Gzip(include_bytes!("../pages/redoc.standalone.js.gz")),
    },
];

/// Routes of this file. Pages are no operations, so the description does not list them.
pub fn routes() -> Routes {
    let (swagger, redoc) = ("swagger-ui/", "redoc/");
    let page = |path| move |door, headers| serve(door, headers, path);
    let file = |page: &'static str| {
        move |door, Path(name): Path<String>, headers| serve(door, headers, format!("{page}{name}"))
    };
    Routes::new()
        .route("/swagger-ui", get(|| async { Redirect::permanent("/swagger-ui/") }))
        .route("/swagger-ui/", get(page(swagger.to_owned())))
        .route("/swagger-ui/{file}", get(file(swagger)))
        .route("/redoc", get(|| async { Redirect::permanent("/redoc/") }))
        .route("/redoc/", get(page(redoc.to_owned())))
        .route("/redoc/{file}", get(file(redoc)))
}

async fn serve(State(door): State<Arc<HttpDoor>>, headers: HeaderMap, path: String) -> Response {
    let asset = ASSETS.iter().find(|asset| asset.path == path);
    match asset.filter(|_| door.config.now().api.enable_swagger) {
        Some(asset) => answer(asset, takes_gzip(&headers)),
        None => {
            let text = format!("there is nothing at /{path}");
            error::response(Error::new(ErrorKind::NotFound, text))
        }
    }
}

fn answer(asset: &Asset, takes_gzip: bool) -> Response {
    let (body, is_gzip) = match asset.content {
        Content::Plain(text) => (Body::from(text), false),
        Content::Gzip(bytes) if takes_gzip => (Body::from(Bytes::from_static(bytes)), true),
        Content::Gzip(bytes) => match unzip(bytes) {
            Ok(bytes) => (Body::from(bytes), false),
            Err(e) => return error::response(Error::internal(e)),
        },
    };
    let mut response = (StatusCode::OK, body).into_response();
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_TYPE, asset.content_type);
    set(header::CACHE_CONTROL, "max-age=3600");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::VARY, "accept-encoding");
    if is_gzip {
        set(header::CONTENT_ENCODING, "gzip");
    }
    response
}

fn unzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain)?;
    Ok(plain)
}

/// Every browser does; who asks by hand may not.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused = weight.split_once('=').is_some_and(|(_, q)| q.trim().parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(asset: &Asset) -> String {
        match asset.content {
            Content::Plain(text) => text.to_owned(),
            Content::Gzip(bytes) => String::from_utf8(unzip(bytes).unwrap()).unwrap(),
        }
    }

    /// What makes a browser load something, and the hosts that these pages are usually fed from.
    #[test]
    fn nothing_is_loaded_from_another_host() {
        for asset in &ASSETS {
            let text = text_of(asset);
            for loader in
                ["src=\"http", "src=\"//", "href=\"http", "href=\"//", "url(http", "url(//"]
            {
                // Links that people may follow are made from the code; pages have none themselves.
                let is_code = asset.content_type == SCRIPT && loader.starts_with("href");
                assert!(is_code || !text.contains(loader), "{}: {loader}", asset.path);
            }
            for host in ["cdn.redoc.ly", "jsdelivr", "unpkg.com", "cdnjs", "googleapis", "gstatic"]
            {
                assert!(!text.contains(host), "{} names {host}", asset.path);
            }
            assert!(!text.contains("@import"), "{}", asset.path);
            assert!(!text.contains("sourceMappingURL=swagger"), "{}", asset.path);
        }
        assert!(!POLICY.contains("http") && !POLICY.contains('*'));
    }

    #[test]
    fn who_takes_gzip() {
        for (value, expected) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("x-gzip", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
