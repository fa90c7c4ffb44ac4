//! Fetching a small document over HTTPS: no redirects, no cookies, a bound on time and length.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::tls::https_config;

/// Fetches `url`, at most `longest` bytes within `limit`.
///
/// # Errors
/// Why there is no document, in a few words for the log.
pub async fn fetch(url: &Url, longest: usize, limit: Duration) -> Result<Vec<u8>, String> {
    let fetched = tokio::time::timeout(limit, fetch_whole(url, longest));
    fetched.await.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
}

async fn fetch_whole(url: &Url, longest: usize) -> Result<Vec<u8>, String> {
    let host = url.host_str().ok_or("the address names no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().ok_or("the address names no port")?;
    let tcp = TcpStream::connect((bare, port)).await.map_err(|e| e.to_string())?;
    if url.scheme() != "https" {
        return exchange(tcp, url, longest).await;
    }
    let connector = TlsConnector::from(Arc::new(https_config()?));
    let name = ServerName::try_from(bare.to_owned()).map_err(|e| e.to_string())?;
    let tls = connector.connect(name, tcp).await.map_err(|e| e.to_string())?;
    exchange(tls, url, longest).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    url: &Url,
    longest: usize,
) -> Result<Vec<u8>, String> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let host = match (url.host_str().unwrap_or_default(), url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let request = Request::get(format!("{}{query}", url.path()))
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("rustydb/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|e| e.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        if response.status() != StatusCode::OK {
            return Err(format!("the answer is {}", response.status()));
        }
        let body = Limited::new(response.into_body(), longest).collect().await;
        body.map(|body| body.to_bytes().to_vec()).map_err(|e| e.to_string())
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        // The connection may end before the answer has been read to its end.
        _ = &mut connection => exchange.await,
    }
}
