//! A REST service over axum and deadpool-postgres, as one writes it by hand: prepared statements,
//! rows through serde, related rows by `json_agg`.
//!
//! ```text
//! rest-service POSTGRES_PORT DATABASE plain
//! rest-service POSTGRES_PORT DATABASE role SECRET
//! ```
//!
//! Prints the port that it listens on. With `role` every request bears a token (HS256) whose role
//! its statement runs as, with the claims as settings, in a transaction of one round trip.

use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, Utc};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use hmac::{Hmac, KeyInit, Mac};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};

/// Connections, as many as RustyDB has beside it.
const POOL_SIZE: usize = 20;

const AUTHOR: &str = "SELECT id, name, email FROM app.author WHERE id = $1";

const AUTHORS: &str = "SELECT id, name, email FROM app.author ORDER BY id LIMIT $1";

const POSTS: &str = "SELECT id, author_id, title, body, score, tags, meta, published, created_at \
    FROM app.post ORDER BY id LIMIT $1";

const NESTED: &str = "SELECT coalesce(json_agg(a), '[]')::text FROM (\
    SELECT id, name, (SELECT coalesce(json_agg(p), '[]') FROM (\
        SELECT id, title, (SELECT coalesce(json_agg(c), '[]') FROM (\
            SELECT id, body FROM app.comment WHERE post_id = post.id ORDER BY id LIMIT 3) AS c\
        ) AS comments FROM app.post WHERE author_id = author.id ORDER BY id LIMIT 5) AS p\
    ) AS posts FROM app.author ORDER BY id LIMIT 10) AS a";

const SETTINGS: &str = "SELECT set_config('role', $1, true), \
    set_config('request.jwt.claims', $2, true), set_config('search_path', 'app', true)";

type Failure = (StatusCode, String);
type Answer = Result<Response, Failure>;

fn failed(error: impl std::fmt::Display) -> Failure {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

struct Service {
    pool: Pool,
    /// Checks tokens; `None` = nobody is asked.
    key: Option<Hmac<Sha256>>,
}

#[derive(Deserialize)]
struct Claims {
    role: String,
    exp: u64,
}

impl Service {
    async fn rows(
        &self,
        headers: &HeaderMap,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Failure> {
        let token = self.key.as_ref().map(|key| checked(key, headers)).transpose()?;
        let client = self.pool.get().await.map_err(failed)?;
        let statement = client.prepare_cached(sql).await.map_err(failed)?;
        let Some((role, claims)) = token else {
            return client.query(&statement, params).await.map_err(failed);
        };
        let settings = client.prepare_cached(SETTINGS).await.map_err(failed)?;
        let values: [&(dyn ToSql + Sync); 2] = [&role, &claims];
        let done = tokio::try_join!(
            client.batch_execute("BEGIN"),
            client.query(&settings, &values),
            client.query(&statement, params),
            client.batch_execute("COMMIT"),
        );
        match done {
            Ok((_, _, rows, _)) => Ok(rows),
            Err(error) => {
                client.batch_execute("ROLLBACK").await.map_err(failed)?;
                Err(failed(error))
            }
        }
    }
}

/// The role of a token and its claims as they are.
fn checked(key: &Hmac<Sha256>, headers: &HeaderMap) -> Result<(String, String), Failure> {
    let refused = || (StatusCode::UNAUTHORIZED, "the token is not valid".to_owned());
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(refused)?;
    let (signed, signature) = token.rsplit_once('.').ok_or_else(refused)?;
    let signature = BASE64.decode(signature).map_err(|_| refused())?;
    let mut mac = key.clone();
    mac.update(signed.as_bytes());
    mac.verify_slice(&signature).map_err(|_| refused())?;
    let (head, claims) = signed.split_once('.').ok_or_else(refused)?;
    let head = BASE64.decode(head).map_err(|_| refused())?;
    let head: serde_json::Value = serde_json::from_slice(&head).map_err(|_| refused())?;
    let text = BASE64.decode(claims).map_err(|_| refused())?;
    let claims: Claims = serde_json::from_slice(&text).map_err(|_| refused())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(failed)?.as_secs();
    if head["alg"] != "HS256" || claims.exp <= now {
        return Err(refused());
    }
    Ok((claims.role, String::from_utf8(text).map_err(|_| refused())?))
}

#[derive(Serialize)]
struct Author {
    id: i32,
    name: String,
    email: String,
}

impl From<&Row> for Author {
    fn from(row: &Row) -> Self {
        Self { id: row.get(0), name: row.get(1), email: row.get(2) }
    }
}

#[derive(Serialize)]
struct Post {
    id: i64,
    author_id: i32,
    title: String,
    body: Option<String>,
    score: Option<Decimal>,
    tags: Option<Vec<String>>,
    meta: Option<serde_json::Value>,
    published: bool,
    created_at: DateTime<Utc>,
}

impl From<&Row> for Post {
    fn from(row: &Row) -> Self {
        Self {
            id: row.get(0),
            author_id: row.get(1),
            title: row.get(2),
            body: row.get(3),
            score: row.get(4),
            tags: row.get(5),
            meta: row.get(6),
            published: row.get(7),
            created_at: row.get(8),
        }
    }
}

#[derive(Deserialize)]
struct Page {
    limit: i64,
}

async fn author(
    State(service): State<Arc<Service>>,
    Path(id): Path<i32>,
    headers: HeaderMap,
) -> Answer {
    let rows = service.rows(&headers, AUTHOR, &[&id]).await?;
    match rows.first() {
        Some(row) => Ok(Json(Author::from(row)).into_response()),
        None => Err((StatusCode::NOT_FOUND, "there is no such author".into())),
    }
}

async fn authors(
    State(service): State<Arc<Service>>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Answer {
    let rows = service.rows(&headers, AUTHORS, &[&page.limit]).await?;
    Ok(Json(rows.iter().map(Author::from).collect::<Vec<_>>()).into_response())
}

async fn posts(
    State(service): State<Arc<Service>>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Answer {
    let rows = service.rows(&headers, POSTS, &[&page.limit]).await?;
    Ok(Json(rows.iter().map(Post::from).collect::<Vec<_>>()).into_response())
}

async fn nested(State(service): State<Arc<Service>>, headers: HeaderMap) -> Answer {
    let rows = service.rows(&headers, NESTED, &[]).await?;
    let row = rows.first().ok_or_else(|| failed("no row"))?;
    let json: String = row.get(0);
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

type Started = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Started {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (port, database, key) = match words.as_slice() {
        [port, database, "plain"] => (port, database, None),
        [port, database, "role", secret] => {
            (port, database, Some(Hmac::new_from_slice(secret.as_bytes())?))
        }
        _ => return Err("POSTGRES_PORT DATABASE plain, or role SECRET, are wanted".into()),
    };
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port.parse()?).dbname(*database).user("postgres");
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
    let pool = Pool::builder(manager).max_size(POOL_SIZE).build()?;
    let router = Router::new()
        .route("/authors/{id}", get(author))
        .route("/authors", get(authors))
        .route("/posts", get(posts))
        .route("/nested", get(nested))
        .with_state(Arc::new(Service { pool, key }));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", listener.local_addr()?.port())?;
    out.flush()?;
    axum::serve(tap(listener), router).await?;
    Ok(())
}

/// Answers are not to wait for more of them.
fn tap(
    listener: tokio::net::TcpListener,
) -> impl axum::serve::Listener<Addr = std::net::SocketAddr> {
    use axum::serve::ListenerExt;
    listener.tap_io(|stream| drop(stream.set_nodelay(true)))
}
