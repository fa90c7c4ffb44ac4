//! What this server can do, and what it cannot: the one table from which `GET /api/v1/info` and
//! every 501 take their words. An operation that is not possible at all is a line of it, too.

use axum::response::Response;
use axum::routing::{MethodFilter, any, on};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, ResponseBuilder, Type};

use super::super::description::is_open;
use super::super::error::ApiError;
use super::super::extract::Caller;
use super::{Routes, aliased};
use crate::error::{Error, ErrorKind};

/// How a feature stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there.
    Supported,
    /// With this extension of PostgreSQL.
    #[allow(dead_code, reason = "nothing that is served needs one yet")]
    Needs(&'static str),
    /// It is not there, and why.
    Absent(&'static str),
}

impl Standing {
    /// `supported`, `needs X`, or the reason.
    pub fn words(self) -> String {
        match self {
            Standing::Supported => "supported".into(),
            Standing::Needs(extension) => format!("needs {extension}"),
            Standing::Absent(reason) => reason.into(),
        }
    }
}

/// Something that clients may look for.
#[derive(Debug)]
pub struct Feature {
    /// Its name in `features`.
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// Operations that it alone is for; each of them answers 501.
    operations: &'static [Operation],
    /// Paths at and below which everything answers 501; they are not described.
    below: &'static [&'static str],
}

/// An operation that is not possible.
#[derive(Clone, Copy, Debug)]
struct Operation {
    method: MethodFilter,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
}

impl Operation {
    const fn new(
        method: MethodFilter,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self { method, path, id, summary }
    }
}

const fn supported(name: &'static str) -> Feature {
    Feature { name, standing: Standing::Supported, operations: &[], below: &[] }
}

const fn absent(
    name: &'static str,
    reason: &'static str,
    operations: &'static [Operation],
) -> Feature {
    Feature { name, standing: Standing::Absent(reason), operations, below: &[] }
}

/// A part of the API that is not there.
const fn family(
    name: &'static str,
    reason: &'static str,
    below: &'static [&'static str],
) -> Feature {
    Feature { name, standing: Standing::Absent(reason), operations: &[], below }
}

const ONE_POOL: &str = "one pool serves everybody; pool.users and pool.databases bound the share \
                        of a role and of a database";

const GET: MethodFilter = MethodFilter::GET;
const PUT: MethodFilter = MethodFilter::PUT;
const POST: MethodFilter = MethodFilter::POST;
const DELETE: MethodFilter = MethodFilter::DELETE;

/// What is there in a family that is not.
const PROMETHEUS: &str = "/api/v1/monitoring/prometheus";

/// Names of operations before the present ones.
const ALIASES: [(&str, &str); 3] = [
    ("/api/v1/auth/ldap/config", "/api/v1/auth/ldap"),
    ("/api/v1/auth/oauth/config", "/api/v1/auth/oauth"),
    ("/api/v1/auth/sso/config", "/api/v1/auth/sso"),
];

/// Every feature, by name.
pub const FEATURES: &[Feature] = &[
    family(
        "analytics",
        "cubes, profiles and workload reports are not part of this version",
        &["/api/v1/analytics"],
    ),
    supported("api_keys"),
    family(
        "autonomous",
        "this server does not tune itself beyond its pool",
        &["/api/v1/autonomous"],
    ),
    absent("backup_encryption", "backups are not encrypted in this version", &[]),
    absent(
        "backup_incremental",
        "incremental backups need PostgreSQL 17, and are not part of this version",
        &[],
    ),
    absent(
        "backup_of_external",
        "an external PostgreSQL is saved where it runs; this server saves the embedded one",
        &[],
    ),
    family(
        "backups_api",
        "backups are made by POST /api/v1/admin/backup; more is not part of this version",
        &["/api/v1/backups", "/api/v1/backup"],
    ),
    supported("batch"),
    family(
        "blockchain",
        "tables that prove their history are not part of this version",
        &["/api/v1/blockchain"],
    ),
    family("cep", "patterns among events are not part of this version", &["/api/v1/cep"]),
    family("cluster", "this server is a single node", &["/api/v1/cluster"]),
    supported("connections"),
    supported("databases"),
    supported("deadlock_history"),
    family(
        "documents",
        "collections are not part of this version; tables have jsonb",
        &["/api/v1/documents"],
    ),
    supported("explain"),
    family(
        "flashback",
        "earlier states of tables are not part of this version",
        &["/api/v1/flashback"],
    ),
    family("gateway", "this server passes requests on to PostgreSQL alone", &["/api/v1/gateway"]),
    family("graph", "graphs are not part of this version", &["/api/v1/graph"]),
    family("graphql", "GraphQL is not part of this version", &["/graphql", "/api/v1/graphql"]),
    supported("indexes"),
    supported("jwt"),
    absent("kerberos", "log-ins over Kerberos are not part of this version", &[]),
    absent(
        "ldap",
        "log-ins over LDAP are not part of this version",
        &[
            Operation::new(GET, "/api/v1/auth/ldap", "get_ldap", "Get the settings of LDAP"),
            Operation::new(PUT, "/api/v1/auth/ldap", "update_ldap", "Change the settings of LDAP"),
        ],
    ),
    supported("locks"),
    absent(
        "mfa",
        "log-ins have one factor in this version",
        &[Operation::new(POST, "/api/v1/auth/mfa/verify", "verify_mfa", "Show a second factor")],
    ),
    family("ml", "models are not part of this version", &["/api/v1/ml"]),
    family(
        "monitoring",
        "GET /api/v1/monitoring/prometheus has every metric; more is not part of this version",
        &["/api/v1/monitoring"],
    ),
    family(
        "mvcc",
        "rows' versions and snapshots are not part of this version",
        &["/api/v1/transactions/mvcc"],
    ),
    supported("ndjson"),
    family(
        "network",
        "peers, ports and balancers are not part of this version: this server is a single node",
        &["/api/v1/network"],
    ),
    absent(
        "oauth_login",
        "this server is no OAuth client; it takes the tokens of issuers",
        &[
            Operation::new(GET, "/api/v1/auth/oauth", "get_oauth", "Get the settings of OAuth"),
            Operation::new(
                PUT,
                "/api/v1/auth/oauth",
                "update_oauth",
                "Change the settings of OAuth",
            ),
            Operation::new(
                GET,
                "/api/v1/auth/oauth/authorize",
                "authorize_oauth",
                "Begin a log-in over OAuth",
            ),
            Operation::new(
                GET,
                "/api/v1/auth/oauth/callback",
                "callback_oauth",
                "End a log-in over OAuth",
            ),
        ],
    ),
    family(
        "optimizer",
        "plans are PostgreSQL's own; POST /api/v1/query/explain shows them",
        &["/api/v1/optimizer", "/api/v1/simd"],
    ),
    absent(
        "pool_aging_policies",
        "connections age by time (time_based) and by their uses (usage_based) and nothing else",
        &[],
    ),
    absent(
        "pool_creation",
        ONE_POOL,
        &[Operation::new(POST, "/api/v1/pools", "create_pool", "Create a pool")],
    ),
    supported("pool_max_uses"),
    absent(
        "pool_partitions",
        ONE_POOL,
        &[
            Operation::new(
                GET,
                "/api/v1/pools/{id}/partitions",
                "list_partitions",
                "List partitions",
            ),
            Operation::new(
                POST,
                "/api/v1/pools/{id}/partitions",
                "create_partition",
                "Create a partition",
            ),
            Operation::new(
                GET,
                "/api/v1/pools/{id}/partitions/{name}",
                "get_partition",
                "Get a partition",
            ),
            Operation::new(
                PUT,
                "/api/v1/pools/{id}/partitions/{name}",
                "update_partition",
                "Change a partition",
            ),
            Operation::new(
                DELETE,
                "/api/v1/pools/{id}/partitions/{name}",
                "delete_partition",
                "Remove a partition",
            ),
            Operation::new(
                GET,
                "/api/v1/pools/{id}/partitions/{name}/stats",
                "get_partition_stats",
                "Get the statistics of a partition",
            ),
        ],
    ),
    absent(
        "pool_recycling_fast",
        "adaptive is fast wherever what a session left on its connection is known",
        &[],
    ),
    absent(
        "pool_recycling_on_demand",
        "connections that are recycled on demand are replaced; pool.recycling_strategy says what \
         is done with those that come back",
        &[],
    ),
    supported("pools"),
    supported("prepared_statements"),
    supported("procedures"),
    supported("query"),
    supported("rbac"),
    family(
        "replication",
        "replication is set up with SQL and the replication protocol, not over HTTP",
        &["/api/v1/replication", "/api/v1/rac"],
    ),
    absent(
        "saml",
        "log-ins over SAML are not part of this version",
        &[
            Operation::new(GET, "/api/v1/auth/sso", "get_sso", "Get the settings of SAML"),
            Operation::new(PUT, "/api/v1/auth/sso", "update_sso", "Change the settings of SAML"),
            Operation::new(POST, "/api/v1/auth/saml/acs", "consume_assertion", "Take an assertion"),
        ],
    ),
    supported("savepoints"),
    supported("schemas"),
    family(
        "security",
        "encryption, masking, labels and audit policies are not part of this version",
        &["/api/v1/security"],
    ),
    absent(
        "session_callbacks",
        "nothing is called when something happens to a session, so there is nothing that an event \
         could trigger; the audit log and the metrics tell",
        &[],
    ),
    absent(
        "session_limits_of_rustydb",
        "PostgreSQL has no limit for open cursors, and the number of sessions is limited for all \
         (network.max_connections_per_user, api.max_open_sessions_per_role)",
        &[],
    ),
    absent(
        "session_state_of_other_doors",
        "what a session of the PostgreSQL or native protocol keeps belongs to its client, who can \
         ask for it and change it there",
        &[],
    ),
    absent(
        "session_suspension",
        "a session of the PostgreSQL or native protocol gives its connection back by itself when \
         it needs none; those that are opened over HTTP can be suspended",
        &[],
    ),
    absent(
        "session_tags",
        "tags are of the pooled sessions of PostgreSQL and native clients (rustydb.tag)",
        &[],
    ),
    supported("sessions"),
    family("spatial", "spatial queries are not part of this version", &["/api/v1/spatial"]),
    family(
        "storage",
        "what PostgreSQL keeps on disk and in memory is its own; SQL shows it",
        &[
            "/api/v1/storage",
            "/api/v1/buffer-pool",
            "/api/v1/memory",
            "/api/v1/inmemory",
            "/api/v1/indexes",
        ],
    ),
    family("streams", "streams of changes are not part of this version", &["/api/v1/streams"]),
    supported("tables"),
    family("tenants", "tenants are not part of this version", &["/api/v1/tenants"]),
    supported("transactions"),
    supported("two_phase_commit"),
    supported("views"),
    family("wal", "the write-ahead log is not part of this version", &["/api/v1/transactions/wal"]),
    family(
        "websocket",
        "WebSockets are not part of this version",
        &["/ws", "/api/v1/ws", "/api/v1/stream", "/api/v1/websocket"],
    ),
];

/// The feature of this name.
pub fn feature(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.name == name)
}

/// The 501 of a feature: its reason, or the extension that it needs.
pub fn unsupported(name: &'static str) -> Error {
    match feature(name).map(|feature| feature.standing) {
        Some(Standing::Absent(reason)) => {
            Error::new(ErrorKind::NotSupported, reason).with_named("feature", name)
        }
        Some(Standing::Needs(extension)) => {
            let text = format!("the extension {extension} is needed");
            Error::new(ErrorKind::ExtensionRequired, text)
                .with_hint(format!("CREATE EXTENSION {extension}"))
                .with_named("extension", extension)
        }
        Some(Standing::Supported) | None => {
            Error::internal(format!("{name} is said to be missing, and is not listed as that"))
        }
    }
}

/// Whether nothing but 501 is at a path: then nobody needs a permission to be told so.
pub fn is_absent(path: &str) -> bool {
    let holds = |below: &&str| {
        path.strip_prefix(*below).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    path != PROMETHEUS && FEATURES.iter().flat_map(|feature| feature.below).any(holds)
}

/// The operations of absent features, and whatever is asked of those that have none.
pub fn routes() -> Routes {
    let families = FEATURES.iter().flat_map(|f| f.below.iter().map(move |path| (f.name, path)));
    families.fold(operations(), |routes, (name, path)| {
        let refusal =
            move |_: Caller| async move { Err::<Response, _>(ApiError(unsupported(name))) };
        routes.route(path, any(refusal)).route(&format!("{path}/{{*rest}}"), any(refusal))
    })
}

fn operations() -> Routes {
    let each = FEATURES.iter().flat_map(|f| f.operations.iter().map(move |o| (f, o)));
    each.fold(Routes::new(), |mut routes, (feature, operation)| {
        let methods = match operation.method {
            GET => vec![HttpMethod::Get],
            PUT => vec![HttpMethod::Put],
            POST => vec![HttpMethod::Post],
            _ => vec![HttpMethod::Delete],
        };
        let paths = &mut routes.get_openapi_mut().paths;
        paths.add_path_operation(operation.path, methods, describe(feature, operation));
        let name = feature.name;
        if is_open(operation.path) {
            let refusal = move || async move { Err::<Response, _>(ApiError(unsupported(name))) };
            return routes.route(operation.path, on(operation.method, refusal));
        }
        // Who asks is known, as everywhere.
        let refusal =
            move |_: Caller| async move { Err::<Response, _>(ApiError(unsupported(name))) };
        let aliases = ALIASES.iter().filter(|(_, canonical)| *canonical == operation.path);
        let routes = aliases.fold(routes, |routes, (alias, canonical)| {
            routes.route(alias, aliased(canonical, on(operation.method, refusal)))
        });
        routes.route(operation.path, on(operation.method, refusal))
    })
}

fn describe(feature: &Feature, operation: &Operation) -> OperationBuilder {
    let tag = match operation.path.split('/').nth(3) {
        Some("pools") => "pools",
        Some("sessions") => "sessions",
        Some("auth") => "auth",
        Some("admin") => "admin",
        _ => "server",
    };
    let names = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')));
    let parameters = names.map(|name| {
        let text = ObjectBuilder::new().schema_type(Type::String).build();
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("Which one."))
            .schema(Some(text))
    });
    let refused = ResponseBuilder::new().description("It is not possible.").build();
    OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(operation.id))
        .summary(Some(operation.summary))
        .description(Some(format!("Answers 501: {}.", feature.standing.words())))
        .parameters(Some(parameters.map(ParameterBuilder::build)))
        .response("501", refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_listed_once_by_name() {
        assert!(FEATURES.windows(2).all(|pair| pair[0].name < pair[1].name));
        let idle = |f: &Feature| {
            f.operations.is_empty() && f.below.is_empty() || f.standing != Standing::Supported
        };
        assert!(FEATURES.iter().all(idle), "what is supported is served by its own route");
    }

    #[test]
    fn whole_parts_are_absent() {
        for path in ["/graphql", "/graphql/ws", "/api/v1/transactions/mvcc/status", "/ws"] {
            assert!(is_absent(path), "{path}");
        }
        for path in ["/graphqlx", "/api/v1/transactions/1", PROMETHEUS, "/api/v1/query"] {
            assert!(!is_absent(path), "{path}");
        }
    }

    #[test]
    fn refusals_say_why() {
        let error = unsupported("pool_partitions");
        assert_eq!((error.kind(), error.message()), (ErrorKind::NotSupported, ONE_POOL));
        assert_eq!(unsupported("query").kind(), ErrorKind::InternalError);
        assert_eq!(unsupported("nonsense").kind(), ErrorKind::InternalError);
    }
}
