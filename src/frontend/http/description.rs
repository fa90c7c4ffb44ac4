//! The description of the API in OpenAPI 3.1, made from the routes themselves.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;

use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, ContentBuilder, InfoBuilder, KnownFormat, LicenseBuilder,
    ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema, SchemaFormat, ServerBuilder, Type,
};

use super::extract::SESSION_COOKIE;
use super::within;

/// A group of operations.
#[derive(Clone, Copy, Debug)]
struct Group {
    tag: &'static str,
    about: &'static str,
}

/// Groups in the order in which documentation shows them.
const GROUPS: [Group; 12] = [
    Group { tag: "query", about: "Run SQL: one statement, many, explained, prepared." },
    Group { tag: "tables", about: "Tables and their rows." },
    Group { tag: "rest", about: "Rows and functions in PostgREST's dialect." },
    Group { tag: "schema", about: "Schemas, databases, views, indexes, procedures." },
    Group { tag: "transactions", about: "Transactions over several requests, and locks." },
    Group { tag: "auth", about: "Log-in, tokens, keys." },
    Group { tag: "jobs", about: "What takes longer than a request." },
    Group { tag: "admin", about: "Configuration, users, roles, maintenance." },
    Group { tag: "pools", about: "Pools and their connections to PostgreSQL." },
    Group { tag: "sessions", about: "The sessions of clients." },
    Group { tag: "server", about: "What this server is and can do." },
    Group { tag: "health", about: "Probes; they ask for no password." },
];

/// What is true of all operations, for people.
const ABOUT: &str = "\
SQL, tables and administration of RustyDB, one server in front of PostgreSQL.

A request may name itself (`X-Request-Id`, `X-Correlation-Id`, `traceparent`), its application \
(`X-Application-Name`) and, if it is a POST, a key under which it is done once \
(`Idempotency-Key`). An answer has `X-Request-Id`, `Server-Timing` and, unless that is off, \
`RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`; 429 and 503 have `Retry-After`.";

/// Operations that anybody may call.
const OPEN: &[&str] = &[
    "/health/",
    "/api/v1/health",
    "/api/v1/openapi.json",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
    // Asked by who is about to log in.
    "/api/v1/auth/oauth/authorize",
    "/api/v1/auth/oauth/callback",
    "/api/v1/auth/saml/acs",
    "/api/v1/auth/mfa/verify",
];

/// Whether a path asks for no log-in.
pub fn is_open(path: &str) -> bool {
    OPEN.iter().any(|open| path.starts_with(open))
}

/// The answer of every operation that is not a success.
const FAILURE: &str = "Failure";

/// Ways to prove who one is; one of them is enough.
const SCHEMES: [&str; 4] = ["basic", "bearer", "api_key", "session"];

/// The body of every answer that is not a success.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    error: ErrorFields,
}

/// The parts of an error.
#[derive(Serialize, ToSchema)]
struct ErrorFields {
    /// Word for programs.
    #[schema(examples("VALIDATION_ERROR"))]
    code: String,
    /// Text for people.
    message: String,
    /// More about it, by code.
    #[schema(value_type = Object)]
    details: serde_json::Value,
    /// SQLSTATE: PostgreSQL's, or that of the code.
    #[schema(examples("42601"), min_length = 5, max_length = 5)]
    sqlstate: String,
    /// Where in the statement, in characters from 1.
    #[schema(required = false, nullable = false)]
    position: Option<u32>,
    /// What to do.
    #[schema(required = false, nullable = false)]
    hint: Option<String>,
    /// Number of the request, also in the header X-Request-Id and in the log.
    request_id: String,
    /// When.
    #[schema(format = DateTime)]
    timestamp: String,
}

/// What routes are added to.
pub fn base() -> OpenApi {
    let tag =
        |group: &Group| TagBuilder::new().name(group.tag).description(Some(group.about)).build();
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("RustyDB")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .contact(Some(ContactBuilder::new().name(Some("RustyDB")).build()))
        .license(Some(license))
        .build();
    let basic = SecurityScheme::Http(Http::new(HttpAuthScheme::Basic));
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
    let session = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(SESSION_COOKIE)));
    let components = ComponentsBuilder::new()
        .schema("ErrorBody", <ErrorBody as utoipa::PartialSchema>::schema())
        .schema("ErrorFields", <ErrorFields as utoipa::PartialSchema>::schema())
        .response(FAILURE, failure())
        .security_scheme("basic", basic)
        .security_scheme("bearer", bearer)
        .security_scheme("api_key", key)
        .security_scheme("session", session)
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").description(Some("This server.")).build()]))
        .tags(Some(GROUPS.iter().map(tag)))
        .components(Some(components))
        .build()
}

/// Adds to every operation what is true of all of them.
pub fn finish(mut api: OpenApi) -> OpenApi {
    let optional = all_optional(&api);
    for (path, item) in &mut api.paths.paths {
        let is_open = is_open(path);
        for (method, operation) in operations(item) {
            for (header, about) in HEADERS {
                if within::takes(header, method, path) {
                    also_takes(operation, header, about);
                }
            }
            complete(&mut operation.responses.responses);
            // The dialect below /rest/v1 reads its bodies itself.
            let body = operation.request_body.as_mut().filter(|_| !path.starts_with("/rest/"));
            if let Some(body) = body {
                if method == "POST" && is_any_of(body, &optional) {
                    body.required = Some(Required::False);
                }
                also_in_msgpack(body);
            }
            operation.security = Some(match is_open {
                true => vec![SecurityRequirement::default()],
                false => SCHEMES
                    .map(|name| SecurityRequirement::new::<_, [&str; 0], &str>(name, []))
                    .to_vec(),
            });
        }
    }
    forget_unused(&mut api);
    api
}

/// Schemas of objects of which no field has to be there.
fn all_optional(api: &OpenApi) -> Vec<String> {
    let schemas = api.components.iter().flat_map(|components| &components.schemas);
    let is_optional = |schema: &RefOr<Schema>| match schema {
        RefOr::T(Schema::Object(object)) => object.required.is_empty(),
        _ => false,
    };
    let names = schemas.filter(|(_, schema)| is_optional(schema));
    names.map(|(name, _)| format!("#/components/schemas/{name}")).collect()
}

fn is_any_of(body: &RequestBody, names: &[String]) -> bool {
    let content = body.content.get("application/json").and_then(|json| json.schema.as_ref());
    matches!(content, Some(RefOr::Ref(named)) if names.contains(&named.ref_location))
}

/// Every operation can fail, and says what it gives when it does not.
fn complete(responses: &mut BTreeMap<String, RefOr<Response>>) {
    let failure = || RefOr::Ref(Ref::from_response_name(FAILURE));
    let failed = responses.remove("default").unwrap_or_else(failure);
    for range in ["4XX", "5XX"] {
        responses.entry(range.into()).or_insert(failed.clone());
    }
    if !responses.keys().any(|status| status.starts_with('2')) {
        let text = "Nothing yet: this version answers 501.";
        responses.insert("200".into(), RefOr::T(Response::new(text)));
    }
}

/// Leaves out schemas that nothing refers to: the parts of generic ones, which stand in them.
fn forget_unused(api: &mut OpenApi) {
    loop {
        let text = api.to_json().unwrap_or_default();
        let Some(components) = &mut api.components else { return };
        let before = components.schemas.len();
        components
            .schemas
            .retain(|name, _| text.contains(&format!("\"#/components/schemas/{name}\"")));
        if components.schemas.len() == before {
            return;
        }
    }
}

/// Names of fields that hold the name of something in PostgreSQL.
const NAMES: [&str; 5] = ["name", "gid", "key_id", "table", "owner"];

/// Says of a finished description what its maker cannot: that unsigned numbers go further than
/// signed ones, and that names have a length.
pub fn sharpen(described: &mut Value) {
    match described {
        Value::Array(items) => items.iter_mut().for_each(sharpen),
        Value::Object(fields) => {
            unsigned(fields);
            only_one(fields);
            if fields.get("in").is_some_and(|place| place == "path") {
                let is_name = fields.get("name").is_some_and(|name| name == "name");
                name_length(fields.get_mut("schema"), is_name);
            }
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                for (name, property) in properties.iter_mut() {
                    if NAMES.contains(&name.as_str()) {
                        name_length(Some(property), false);
                    }
                }
            }
            fields.values_mut().for_each(sharpen);
        }
        _ => {}
    }
}

/// One of one is that.
fn only_one(schema: &mut Map<String, Value>) {
    let is_one = schema.get("oneOf").and_then(Value::as_array).is_some_and(|all| all.len() == 1);
    if is_one
        && let Some(Value::Array(mut all)) = schema.shift_remove("oneOf")
        && let Some(Value::Object(only)) = all.pop()
    {
        for (name, value) in only {
            schema.entry(name).or_insert(value);
        }
    }
}

fn unsigned(schema: &mut Map<String, Value>) {
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => u64::from(u32::MAX),
        Some("int64") => u64::MAX,
        _ => return,
    };
    if schema.get("minimum").and_then(Value::as_f64).is_some_and(|least| least >= 0.0) {
        schema.shift_remove("format");
        schema.entry("maximum").or_insert(most.into());
    }
}

fn name_length(schema: Option<&mut Value>, is_longest: bool) {
    let Some(Value::Object(schema)) = schema else { return };
    let is_text = |kind: &Value| {
        kind == "string" || kind.as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "string"))
    };
    // Who says how long a name may be has said everything.
    let is_open = !schema.contains_key("enum") && !schema.contains_key("maxLength");
    if is_open && schema.get("type").is_some_and(is_text) {
        schema.entry("minLength").or_insert(1.into());
        if is_longest {
            schema.entry("maxLength").or_insert(63.into());
        }
    }
}

/// What is taken as JSON is taken as MessagePack too.
fn also_in_msgpack(body: &mut RequestBody) {
    if body.content.len() == 1
        && let Some(json) = body.content.get("application/json").cloned()
    {
        body.content.insert("application/msgpack".into(), json);
    }
}

fn failure() -> Response {
    let schema = Ref::from_schema_name("ErrorBody");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new()
        .description("It was refused, or failed: the body says why.")
        .content("application/json", content)
        .build()
}

/// What the headers of [`within`] are.
const HEADERS: [(&str, &str); 2] = [
    (within::SESSION, "Number of an open session to run in."),
    (within::TRANSACTION, "Number of an open transaction to run in."),
];

fn also_takes(operation: &mut Operation, header: &str, about: &str) {
    let parameters = operation.parameters.get_or_insert_default();
    if parameters.iter().any(|parameter| parameter.name == header) {
        return;
    }
    let kind = SchemaFormat::KnownFormat(KnownFormat::Int64);
    let number = ObjectBuilder::new().schema_type(Type::Integer).format(Some(kind));
    let parameter = ParameterBuilder::new()
        .name(header)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(number.minimum(Some(0)).build()));
    parameters.push(parameter.build());
}

/// The operations of a path with their methods.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, put, post, delete, options, head, patch, trace, .. } = item;
    let all = [
        ("GET", get),
        ("PUT", put),
        ("POST", post),
        ("DELETE", delete),
        ("OPTIONS", options),
        ("HEAD", head),
        ("PATCH", patch),
        ("TRACE", trace),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
