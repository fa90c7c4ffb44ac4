//! `Content-Encoding` in both directions.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};
use tower::{ServiceExt, service_fn};
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{Compression, CompressionLevel};

use super::super::formats::{Format, pack_json};
use crate::config::Encodings;
use crate::error::{Error, ErrorKind, Result};

/// Answers up to this length are not worth it.
const SMALLEST: u64 = 1024;

/// What costs about as much time for each of the three, and gains most of what can be gained.
const LEVEL: CompressionLevel = CompressionLevel::Precise(4);

/// Compresses an answer if the client takes that. What is compressed goes out whenever the body has
/// nothing more at the moment, so streams stay streams.
pub(super) async fn compress(
    encodings: &Encodings,
    accepted: Option<HeaderValue>,
    mut response: Response,
) -> Response {
    let Some(accepted) = accepted else { return response };
    let size = response.body().size_hint();
    let is_on = encodings.gzip || encodings.br || encodings.zstd;
    if !is_on || size.upper().is_some_and(|size| size <= SMALLEST) {
        return response;
    }
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert(header::ACCEPT_ENCODING, accepted);
    // Ours counts rows. The layer takes it for one of bytes, which cannot be compressed.
    let range = response.headers_mut().remove(header::CONTENT_RANGE);
    let mut response = Some(response);
    // It is called once.
    let answered = service_fn(move |_: Request| {
        ready(Ok::<_, Infallible>(response.take().unwrap_or_default()))
    });
    let compressed = Compression::new(answered)
        .gzip(encodings.gzip)
        .br(encodings.br)
        .zstd(encodings.zstd)
        .quality(LEVEL)
        .compress_when(SizeAbove::new(SMALLEST + 1).and(NotForContentType::IMAGES));
    let Ok(mut response) = Box::pin(compressed.oneshot(request)).await;
    if let Some(range) = range {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response.map(Body::new)
}

/// Writes a JSON document as MessagePack. What is still to come, or is something else, stays as it
/// is: rows are asked for in the form that they are wanted in.
pub(super) async fn pack(response: Response) -> Response {
    let is_json = |value: &HeaderValue| value.as_bytes() == b"application/json";
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(is_json);
    let is_whole = response.body().size_hint().exact().is_some_and(|length| length > 0);
    if !is_json || !is_whole {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(json) = body.collect().await else { return Response::from_parts(parts, Body::empty()) };
    let mut packed = Vec::new();
    pack_json(&json.to_bytes(), &mut packed);
    let msgpack = HeaderValue::from_static(Format::Msgpack.content_type());
    parts.headers.insert(header::CONTENT_TYPE, msgpack);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.append(header::VARY, HeaderValue::from_static("accept"));
    Response::from_parts(parts, Body::from(packed))
}

/// Bytes that are decompressed at once.
const PIECE: usize = 16 << 10;

/// Undoes what the client has done to the body. A body may be of several members or frames; what
/// follows the last and is none is an error of whoever reads it (RFC 1952, 2.2; RFC 8878, 3.1).
pub(super) fn decompress(mut request: Request) -> Result<Request> {
    let Some(coding) = request.headers_mut().remove(header::CONTENT_ENCODING) else {
        return Ok(request);
    };
    let is = |name: &str| coding.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    if is("identity") {
        return Ok(request);
    }
    let body = std::mem::take(request.body_mut());
    let packed = StreamReader::new(body.map_err(std::io::Error::other).into_data_stream());
    let plain: Pin<Box<dyn AsyncRead + Send>> = if is("gzip") || is("x-gzip") {
        let mut decoder = GzipDecoder::new(packed);
        decoder.multiple_members(true);
        Box::pin(decoder)
    } else if is("zstd") {
        let mut decoder = ZstdDecoder::new(packed);
        decoder.multiple_members(true);
        Box::pin(decoder)
    } else if is("br") {
        let mut decoder = BrotliDecoder::new(packed);
        decoder.multiple_members(true);
        Box::pin(decoder)
    } else {
        let text = "the body's Content-Encoding is not one of gzip, br, zstd, identity";
        return Err(Error::new(ErrorKind::UnsupportedMediaType, text));
    };
    request.headers_mut().remove(header::CONTENT_LENGTH);
    *request.body_mut() = Body::from_stream(ReaderStream::with_capacity(plain, PIECE));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn coding_of(accepted: &'static str, bytes: usize, encodings: &Encodings) -> String {
        let mut response = Response::new(Body::from(vec![b'x'; bytes]));
        let rows = HeaderValue::from_static("0-9/*");
        response.headers_mut().insert(header::CONTENT_RANGE, rows.clone());
        let accepted = Some(HeaderValue::from_static(accepted));
        let response = compress(encodings, accepted, response).await;
        assert_eq!(response.headers()[header::CONTENT_RANGE], rows);
        let coding = response.headers().get(header::CONTENT_ENCODING);
        coding.map_or_else(String::new, |coding| coding.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn what_is_compressed() {
        let all = Encodings::default();
        for (accepted, bytes, expected) in [
            ("gzip", 1025, "gzip"),
            ("gzip", 1024, ""),
            ("zstd, br;q=0.5", 5000, "zstd"),
            ("identity", 5000, ""),
            ("gzip;q=0", 5000, ""),
            ("compress", 5000, ""),
        ] {
            assert_eq!(coding_of(accepted, bytes, &all).await, expected, "{accepted} {bytes}");
        }
        let only = Encodings { zstd: false, br: false, ..all };
        assert_eq!(coding_of("zstd, gzip;q=0.1", 5000, &only).await, "gzip");
        let none = Encodings { gzip: false, ..only };
        assert_eq!(coding_of("gzip", 5000, &none).await, "");
    }
}
