//! PostgREST's dialect over HTTP: what `query/postgrest` has understood is run, and answered with
//! its content types, headers and statuses
//! (<https://docs.postgrest.org/en/latest/references/api.html>).

use std::pin::pin;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::super::extract::{self, Caller};
use super::super::formats::{Format, Layout as Form};
use super::super::open::Hold;
use super::super::running::Fill;
use super::super::{HttpDoor, InWork};
use super::failure::Failure;
use super::media::Media;
use super::shapes::Known;
use super::uri::{self, pairs, segments};
use super::{
    Counting, Job, Settings, Sink, Stream, cookies_of, counting, describe, headers_of, is_outdated,
    is_stale, planned, start, value_of,
};
use crate::auth::tokens::GrantKind;
use crate::error::{Error, ErrorKind};
use crate::proto::json::Style;
use crate::query::plan::ask::Count;
use crate::query::plan::{CallPlan, Limits, ReadPlan, Returns, Statement, WritePlan};
use crate::query::postgrest::{
    self, Action, Options, Planned, Preferences, Refusal, Representation, Shape, Template,
    Transaction, Verb, content_range, read_status,
};
use crate::query::schema::Schema;
use crate::session::Session;

/// Where the dialect is.
pub const PREFIX: &str = "/rest/v1";

/// Values as PostgreSQL's own JSON has them, in which related rows come.
const STYLE: Style = Style {
    int8_as_string: false,
    numeric_as_number: true,
    as_postgres: true,
    without_nulls: false,
};

/// Headers that the dialect reads.
const READ: [&str; 6] =
    ["accept", "accept-profile", "content-profile", "content-type", "prefer", "range"];

type Answer = Result<Response, Failure>;

/// A statement, and the values of its parameters.
type Filled<'a> = (&'a Statement, Vec<Option<&'a [u8]>>);

/// Answers a request below [`PREFIX`].
pub async fn serve(door: Arc<HttpDoor>, request: Request) -> Response {
    let methods = match request.uri().path().strip_prefix(PREFIX).unwrap_or("") {
        "" | "/" => "OPTIONS,GET,HEAD",
        path if path.starts_with("/rpc/") => "OPTIONS,GET,HEAD,POST",
        _ => "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE",
    };
    // Behind a box, so that the layers around it do not move it about.
    match Box::pin(attend(&door, request)).await {
        Ok(response) => response,
        Err(failure) => {
            let mut response = failure.into_response(&door.metrics);
            if response.status() == StatusCode::METHOD_NOT_ALLOWED {
                put(response.headers_mut(), header::ALLOW, methods);
            }
            response
        }
    }
}

async fn attend(door: &Arc<HttpDoor>, request: Request) -> Answer {
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, door).await.map_err(|e| e.0)?;
    let grant = caller.identity.grant.as_ref();
    let is_nobody = grant.is_some_and(|grant| grant.kind == GrantKind::Anonymous);
    let deadline = Instant::now() + caller.config.api.request_timeout_secs.duration();
    let coming = Coming { door, caller: &caller, parts: &parts, deadline };
    let answered = coming.answer(body).await;
    answered.map_err(|failure| match failure {
        // Who has not said who he is may do so.
        Failure::Failed(error) if is_nobody && error.sqlstate().as_str() == "42501" => {
            Failure::Failed(error.with_kind(ErrorKind::AuthenticationFailed))
        }
        other => other,
    })
}

/// A request whose sender is known.
struct Coming<'a> {
    door: &'a Arc<HttpDoor>,
    caller: &'a Caller,
    parts: &'a Parts,
    deadline: Instant,
}

impl<'a> Coming<'a> {
    async fn answer(&self, body: Body) -> Answer {
        let body = match self.parts.method {
            Method::GET => return self.get().await,
            Method::POST | Method::PUT | Method::PATCH => {
                extract::read_body(body, self.door).await?
            }
            _ => Bytes::new(),
        };
        let session = self.caller.session_for_rest(self.door)?;
        Box::pin(self.anew(session, None, &body)).await
    }

    /// Answers a request that reads. When it meets a table that was altered past RustyDB, it is
    /// answered once more: nothing has been done. What a function does is its own affair.
    async fn get(&self) -> Answer {
        let session = self.caller.session_for_rest(self.door)?;
        match self.get_as_known(session).await {
            Err(Failure::Failed(error)) if self.names_table() && is_outdated(&error) => {
                Box::pin(self.get_as_it_is(error)).await
            }
            answer => answer,
        }
    }

    async fn get_as_it_is(&self, error: Error) -> Answer {
        let mut session = self.caller.session_for_rest(self.door)?;
        let newer = tokio::time::timeout_at(self.deadline, session.newer_schema()).await;
        let is_newer = matches!(newer, Ok(Ok(Some(_))));
        // A statement whose columns have changed is not known any more.
        match is_newer || is_stale(&error) {
            true => self.get_as_known(session).await,
            false => Err(error.into()),
        }
    }

    /// Answers what is planned already, and else plans it.
    async fn get_as_known(&self, mut session: Box<Session>) -> Answer {
        let Some(shape) = self.shape() else {
            return Box::pin(self.anew(session, None, &[])).await;
        };
        let schema = {
            let schema = pin!(session.schema());
            tokio::time::timeout_at(self.deadline, schema).await.map_err(late)??
        };
        match self.door.shapes.find(&shape, &self.caller.config, &schema) {
            Some(known) => self.again(session, &known, &schema, &shape).await,
            None => Box::pin(self.anew(session, Some(&shape), &[])).await,
        }
    }

    fn path(&self) -> &'a str {
        self.parts.uri.path().strip_prefix(PREFIX).unwrap_or("")
    }

    fn names_table(&self) -> bool {
        self.path().split('/').nth(1).is_some_and(|name| !matches!(name, "" | "rpc"))
    }

    /// What it has in common with others for rows; `None` = nothing.
    fn shape(&self) -> Option<Shape<'a>> {
        if !self.names_table() {
            return None;
        }
        let headers = &self.parts.headers;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = headers.filter(|(name, _)| READ.contains(name));
        Shape::of(self.path(), self.parts.uri.query().unwrap_or(""), headers)
    }

    /// Answers a request whose shape is planned.
    async fn again(
        &self,
        session: Box<Session>,
        known: &Known,
        schema: &Schema,
        shape: &Shape<'_>,
    ) -> Answer {
        let Known { template, media } = known;
        let given = shape.values().map(uri::value).collect::<Result<Vec<_>, _>>()?;
        let Action::Read(plan) = &template.planned.action else {
            return Err(Error::internal("a template is for something else than rows").into());
        };
        let asked = self.asked(schema, &template.planned, *media)?;
        let (statement, values) = (&template.statement, template.values(&given));
        let rows = pin!(asked.rows(session, (statement, values), plan, None));
        match asked.ends_at() {
            Some(_) => {
                if let Some(in_work) = self.parts.extensions.get::<InWork>() {
                    in_work.has_own_limit();
                }
                rows.await
            }
            None => tokio::time::timeout_at(self.deadline, rows).await.map_err(late)?,
        }
    }

    /// Plans a request, and answers it.
    async fn anew(
        &self,
        mut session: Box<Session>,
        shape: Option<&Shape<'_>>,
        body: &[u8],
    ) -> Answer {
        let (parts, config) = (self.parts, &self.caller.config);
        let path = segments(self.path())?;
        let path: Vec<&str> = path.iter().map(|part| &**part).collect();
        let query = pairs(parts.uri.query().unwrap_or(""))?;
        let headers: Vec<(&str, &str)> = parts
            .headers
            .iter()
            .filter(|(name, _)| READ.contains(&name.as_str()))
            .map(|(name, value)| Ok((name.as_str(), visible(value)?)))
            .collect::<Result<_, Refusal>>()?;
        let request = postgrest::Request {
            method: parts.method.as_str(),
            path: &path,
            query: &query,
            headers: &headers,
            body,
        };
        let options = Options {
            schemas: config.api.rest_schemas.clone(),
            limits: Limits { max_rows: None, aggregates: true },
            may_roll_back: true,
            cursor_key: None,
        };
        let plan =
            |schema: &Schema| postgrest::plan(schema, &options, &request).map_err(Failure::from);
        // Pinned here: a time-out around them would move them.
        let (schema, planned) = {
            let known = pin!(planned(&mut session, plan));
            tokio::time::timeout_at(self.deadline, known).await.map_err(late)??
        };
        let media = Media::accepted(request.headers, &planned)?;
        if let Some(shape) = shape.filter(|shape| self.door.shapes.comes_again(shape))
            && let Some(template) = Template::of(&schema, &options, &request, shape, &planned)
        {
            let known = Known { template, media };
            self.door.shapes.keep(shape, known, (config, &schema));
        }
        let asked = self.asked(&schema, &planned, media)?;
        let answered = pin!(asked.answer(session));
        tokio::time::timeout_at(self.deadline, answered).await.map_err(late)?
    }

    fn asked<'s>(
        &'s self,
        schema: &'s Schema,
        planned: &'s Planned,
        media: Media,
    ) -> Result<Asked<'s>, Error> {
        let (door, caller, parts, deadline) = (self.door, self.caller, self.parts, self.deadline);
        let settings = settings(caller, parts, schema, planned)?;
        Ok(Asked { door, caller, parts, schema, planned, settings, deadline, media })
    }
}

fn late(_: Elapsed) -> Failure {
    super::super::running::timed_out().into()
}

fn visible(value: &HeaderValue) -> Result<&str, Refusal> {
    value.to_str().map_err(|_| Refusal::body("a header is not ASCII"))
}

/// What policies and functions can read of the request.
fn settings<'a>(
    caller: &'a Caller,
    parts: &'a Parts,
    schema: &'a Schema,
    planned: &'a Planned,
) -> Result<Settings<'a>, Error> {
    let mut settings = Settings::of(&caller.identity, schema, &[])?
        .with("search_path", &*planned.search_path)
        .with("request.method", parts.method.as_str())
        .with("request.path", parts.uri.path().strip_prefix(PREFIX).unwrap_or_default())
        .with("request.headers", headers_of(&parts.headers))
        .read_only(planned.read_only);
    if let Some(cookies) = cookies_of(&parts.headers) {
        settings = settings.with("request.cookies", cookies);
    }
    if let Action::Call(plan) = &planned.action {
        let hoisted = plan.settings(schema).iter();
        settings = hoisted.fold(settings, |all, (name, value)| all.hoisted(name, value));
    }
    Ok(match &planned.preferences.timezone {
        Some(zone) => settings.with("TimeZone", zone.as_str()),
        None => settings,
    })
}

/// A request that is understood.
struct Asked<'a> {
    door: &'a Arc<HttpDoor>,
    caller: &'a Caller,
    parts: &'a Parts,
    schema: &'a Schema,
    planned: &'a Planned,
    settings: Settings<'a>,
    deadline: Instant,
    media: Media,
}

impl Asked<'_> {
    async fn answer(&self, session: Box<Session>) -> Answer {
        match &self.planned.action {
            Action::Describe => {
                let document = describe::document(self.schema, &self.planned.schema);
                Ok(self.response(StatusCode::OK, describe::CONTENT_TYPE, Body::from(document)))
            }
            Action::Methods(methods) => {
                let mut response = Response::new(Body::empty());
                put(response.headers_mut(), header::ALLOW, methods);
                Ok(response)
            }
            Action::Read(plan) => self.read(session, plan).await,
            Action::Write(plan, verb) => Box::pin(self.write(session, plan, *verb)).await,
            Action::Call(plan) => Box::pin(self.call(session, plan)).await,
        }
    }

    fn preferences(&self) -> &Preferences {
        &self.planned.preferences
    }

    async fn start(
        &self,
        session: Box<Session>,
        statement: &Statement,
        sink: Sink,
        in_transaction: bool,
    ) -> Result<Stream, Failure> {
        let statement = (statement, statement.values());
        self.start_with(session, statement, sink, in_transaction).await
    }

    async fn start_with(
        &self,
        session: Box<Session>,
        (statement, values): Filled<'_>,
        sink: Sink,
        in_transaction: bool,
    ) -> Result<Stream, Failure> {
        let job = Job {
            caller: self.caller,
            statement,
            values,
            settings: &self.settings,
            in_transaction,
            sink,
            limit: None,
            hidden: 0,
            deadline: self.ends_at(),
        };
        Ok(start(self.door, Hold::Own(session), job).await?)
    }

    /// When the statement is stopped. Lines may take as long as their reader wants.
    fn ends_at(&self) -> Option<Instant> {
        match self.media {
            Media::Ndjson | Media::Csv => None,
            _ => Some(self.deadline),
        }
    }

    /// What becomes of rows, by the content type that was asked for.
    fn sink(&self) -> Sink {
        let style = self.style();
        let rows = |format| Sink::Rows(Form { format, rows_as_arrays: false, style });
        match self.media {
            _ if self.planned.headers_only => Sink::Nothing,
            _ if self.planned.singular => Sink::Object(style),
            Media::Csv => rows(Format::Csv),
            Media::Ndjson => rows(Format::Ndjson),
            _ => rows(Format::Json),
        }
    }

    fn style(&self) -> Style {
        let without_nulls = matches!(self.media, Media::Stripped | Media::StrippedObject);
        Style { without_nulls, ..STYLE }
    }

    async fn read(&self, mut session: Box<Session>, plan: &ReadPlan) -> Answer {
        let (limit, offset) = (plan.limit(), plan.offset());
        let counted = counting(self.door, &mut session, self.schema, plan, &self.settings);
        let Counting { with_total, total } = counted.await?;
        if self.planned.headers_only && with_total && !self.planned.singular {
            // The rows themselves are of no use to anybody.
            let statement = plan.exact_count(self.schema);
            let text = value_of(self.door, &mut session, &statement, &self.settings);
            let text = Box::pin(text).await?;
            let total = text.and_then(|text| text.parse().ok()).unwrap_or(0);
            let rows = rows_of_page(total, offset, limit);
            let status = read_status(offset, rows, Some(total))?;
            let range = content_range(offset, rows, Some(total));
            return Ok(self.rows_response(status, Some(&range), Body::empty()));
        }
        let statement = plan.written(self.schema, with_total);
        self.rows(session, (&statement, statement.values()), plan, total).await
    }

    /// Reads the rows of a plan.
    async fn rows(
        &self,
        session: Box<Session>,
        statement: Filled<'_>,
        plan: &ReadPlan,
        planned_total: Option<u64>,
    ) -> Answer {
        let mut stream = self.start_with(session, statement, self.sink(), false).await?;
        let fill = stream.first().await?;
        self.rows_answer(stream, fill, (plan.offset(), plan.limit()), planned_total)
    }

    /// The answer with rows that were read.
    fn rows_answer(
        &self,
        stream: Stream,
        fill: Fill,
        (offset, limit): (u64, Option<u64>),
        planned_total: Option<u64>,
    ) -> Answer {
        let total = stream.total().or(planned_total);
        let rows = match (&fill, stream.total()) {
            (Fill::End, _) => Some(stream.rows()),
            (Fill::More, Some(total)) => Some(rows_of_page(total, offset, limit)),
            // How many follow is not known.
            (Fill::More, None) => None,
        };
        let status = match rows {
            Some(rows) => read_status(offset, rows, total)?,
            None => 200,
        };
        self.check_singular(&stream)?;
        let range = rows.map(|rows| content_range(offset, rows, total));
        let body = self.body(stream, fill);
        Ok(self.rows_response(status, range.as_deref(), body))
    }

    fn body(&self, stream: Stream, fill: Fill) -> Body {
        let extensions = &self.parts.extensions;
        match (extensions.get::<InWork>(), self.caller.id.clone()) {
            _ if self.planned.headers_only => Body::empty(),
            (Some(in_work), id) => stream.into_body(fill, self.door, id, in_work),
            (None, _) => Body::empty(),
        }
    }

    fn check_singular(&self, stream: &Stream) -> Result<(), Refusal> {
        match stream.rows() {
            1 => Ok(()),
            rows if self.planned.singular => Err(Refusal::singular(rows)),
            _ => Ok(()),
        }
    }

    async fn write(&self, session: Box<Session>, plan: &WritePlan, verb: Verb) -> Answer {
        let statement = plan.statement(self.schema).map_err(Refusal::from)?;
        let wants = self.preferences().representation;
        let sink = match wants {
            Some(Representation::Full) => self.sink(),
            // The keys of the row, for its place.
            Some(Representation::HeadersOnly) => Sink::Object(STYLE),
            _ => Sink::Nothing,
        };
        let looks = self.looks_first();
        let mut stream = self.start(session, &statement, sink, looks).await?;
        let fill = match looks {
            true => self.look(&mut stream, plan.returns_rows()).await?,
            false => stream.first().await?,
        };
        let rows = if plan.returns_rows() { stream.rows() } else { stream.affected() };
        if verb == Verb::Put && rows == 0 && fill == Fill::End {
            return Err(Refusal::put_mismatch().into());
        }
        let total = (self.preferences().count == Some(Count::Exact)).then_some(rows);
        let range = match verb {
            Verb::Update => content_range(0, rows, total),
            _ => content_range(0, 0, total),
        };
        let range = Some(range.as_str()).filter(|_| fill == Fill::End && verb != Verb::Put);
        if wants == Some(Representation::Full) {
            let status = if verb == Verb::Insert { 201 } else { 200 };
            let body = self.body(stream, fill);
            return Ok(self.rows_response(status, range, body));
        }
        let status =
            if verb == Verb::Insert { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        self.put_headers(response.headers_mut(), range);
        if wants == Some(Representation::HeadersOnly)
            && verb == Verb::Insert
            && rows == 1
            && let Some(place) = place_of(&mut stream, self.parts.uri.path())
        {
            put(response.headers_mut(), header::LOCATION, &place);
        }
        Ok(response)
    }

    /// Whether the answer decides what becomes of the transaction.
    fn looks_first(&self) -> bool {
        let preferences = self.preferences();
        self.planned.singular
            || preferences.most_affected().is_some()
            || preferences.transaction == Some(Transaction::Rollback)
    }

    /// Looks at the whole answer before it counts.
    async fn look(&self, stream: &mut Stream, returns_rows: bool) -> Result<Fill, Failure> {
        stream.whole().await?;
        self.settle(stream, returns_rows).await
    }

    /// Ends the transaction of an answer that is there.
    async fn settle(&self, stream: &mut Stream, returns_rows: bool) -> Result<Fill, Failure> {
        let rows = if returns_rows { stream.rows() } else { stream.affected() };
        let preferences = self.preferences();
        let refused = match preferences.most_affected() {
            _ if self.planned.singular && rows != 1 => Some(Refusal::singular(rows)),
            Some(most) if rows > most => Some(Refusal::max_affected(rows)),
            _ => None,
        };
        let commits = refused.is_none() && preferences.transaction != Some(Transaction::Rollback);
        stream.end_transaction(commits).await?;
        refused.map_or(Ok(Fill::End), |refusal| Err(refusal.into()))
    }

    async fn call(&self, session: Box<Session>, plan: &CallPlan) -> Answer {
        let statement = plan.statement(self.schema).map_err(Refusal::from)?;
        let sink = match (plan.returns(), self.media) {
            _ if self.planned.headers_only => Sink::Nothing,
            (Returns::Nothing, _) => Sink::Nothing,
            (_, Media::Csv | Media::Ndjson) | (Returns::Rows, _) => self.sink(),
            (Returns::Row, _) => Sink::Object(self.style()),
            (Returns::Scalar, Media::Text) => Sink::Text,
            (Returns::Scalar, Media::Bytes) => Sink::Bytes,
            (Returns::Scalar, _) => Sink::Value(self.style()),
            (Returns::Scalars, _) => Sink::Values(self.style()),
        };
        let is_guided = plan.guides_response();
        let looks = is_guided || !self.planned.read_only && self.looks_first();
        let mut stream = self.start(session, &statement, sink, looks).await?;
        if is_guided {
            stream.whole().await?;
            let guided = stream.guided(self.door).await?;
            let fill = self.settle(&mut stream, true).await?;
            let mut response = self.called(stream, plan, fill)?;
            guided.apply(&mut response);
            return Ok(response);
        }
        let fill = match looks {
            true => self.look(&mut stream, true).await?,
            false => stream.first().await?,
        };
        self.called(stream, plan, fill)
    }

    /// The answer with what a function gives.
    fn called(&self, stream: Stream, plan: &CallPlan, fill: Fill) -> Answer {
        if plan.returns() == Returns::Nothing {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            self.put_headers(response.headers_mut(), None);
            return Ok(response);
        }
        let is_counted = plan.returns() == Returns::Scalar && plan.count() != Count::None;
        self.rows_answer(stream, fill, (plan.offset(), None), is_counted.then_some(1))
    }

    fn rows_response(&self, status: u16, range: Option<&str>, body: Body) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = self.response(status, self.media.content_type(), body);
        self.put_headers(response.headers_mut(), range);
        response
    }

    fn response(&self, status: StatusCode, content_type: &'static str, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = self.door.usual_headers.clone();
        let content_type = HeaderValue::from_static(content_type);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }

    fn put_headers(&self, headers: &mut HeaderMap, range: Option<&str>) {
        if let Some(range) = range {
            put(headers, header::CONTENT_RANGE, range);
        }
        if let Some(applied) = self.preferences().applied() {
            put(headers, HeaderName::from_static("preference-applied"), &applied);
        }
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn rows_of_page(total: u64, offset: u64, limit: Option<u64>) -> u64 {
    total.saturating_sub(offset).min(limit.unwrap_or(u64::MAX))
}

/// Where a new row is: its table, filtered by the primary key.
fn place_of(stream: &mut Stream, table: &str) -> Option<String> {
    use super::super::running::Chunks;
    let row = stream.take();
    let keys: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&row).ok()?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in &keys {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        query.append_pair(name, &format!("eq.{text}"));
    }
    (!keys.is_empty()).then(|| format!("{table}?{}", query.finish()))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Failed(error)
    }
}
