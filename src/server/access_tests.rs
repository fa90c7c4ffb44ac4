//! Log-ins, tokens, keys and roles on a real PostgreSQL: what the tables of the schema `rustydb`
//! are for. One server serves all of it, in databases of their own.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Backend;
use crate::audit::{AuditLog, EventType, Wanted};
use crate::auth::api_keys::NewKey;
use crate::auth::rbac::{Permission, RoleDefinition};
use crate::auth::tables::{SystemSql, Tables, VERSION};
use crate::auth::{AccessChanges, Authenticator, Credential, Identity, Login, Means, Visit};
use crate::backend::{Credentials, Servers};
use crate::config::{Config, Live};
use crate::error::{ErrorKind, Result};
use crate::executor::roles::SystemRoles;
use crate::executor::system::OwnSql;
use crate::limits::rate::RateLimiter;
use crate::pool::{Demand, LaneKey, Pool, PoolKind};
use crate::supervisor::data_dir::DataDir;
use crate::telemetry::{Health, Metrics};
use crate::types::{Protocol, Secret};

/// A running PostgreSQL, and what reaches it.
struct World {
    live: Live,
    servers: Servers,
    changes: AccessChanges,
    metrics: Arc<Metrics>,
}

impl World {
    fn demand(role: &str, database: &str) -> Demand {
        let lane = Arc::new(LaneKey::new(&role.into(), None, &database.into(), Vec::new()));
        Demand { lane, credentials: Credentials::Local }
    }

    fn pool(&self) -> Pool {
        let (servers, live) = (self.servers.clone(), self.live.clone());
        Pool::new(PoolKind::System, servers, live, self.changes.clone(), self.metrics.clone())
    }

    fn sql(&self, role: &str, database: &str) -> Arc<OwnSql> {
        Arc::new(OwnSql::new(self.pool(), Self::demand(role, database)))
    }

    async fn value(&self, database: &str, sql: &str) -> String {
        let rows = self.sql("postgres", database).run(sql.to_owned()).await.unwrap();
        rows.into_iter().next().and_then(|row| row.into_iter().next()?).unwrap_or_default()
    }

    /// A node of a fleet: nothing is shared but PostgreSQL.
    fn node(&self) -> Authenticator {
        let demand = Self::demand("postgres", "postgres");
        Authenticator::new(Means {
            roles: Arc::new(SystemRoles::new(self.pool(), demand)),
            sql: self.sql("postgres", "postgres"),
            live: self.live.clone(),
            changes: self.changes.clone(),
            limiter: Arc::new(RateLimiter::new(1000)),
            audit: AuditLog::in_memory(self.live.clone(), self.metrics.clone()),
            metrics: self.metrics.clone(),
        })
    }
}

fn visit() -> Visit {
    Visit::new(Protocol::Http, Some(IpAddr::from([192, 0, 2, 1])))
}

async fn password(node: &Authenticator, role: &str, text: &str) -> Result<Identity> {
    node.credentials(Credential::Password(role.into(), Secret::new(text)), &visit()).await
}

async fn bearer(node: &Authenticator, token: &Secret) -> Result<Identity> {
    node.credentials(Credential::Bearer(token.clone()), &visit()).await
}

#[tokio::test]
async fn log_ins_keys_and_roles_on_a_real_postgresql() {
    let dir = tempfile::Builder::new().prefix("rustydb-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = Config::default();
    config.server.data_dir = Some(dir.path().to_owned());
    config.embedded.shared_buffers = Some("16MB".into());
    config.api_keys.max_per_user = 3;
    let mut data = DataDir::open(dir.path()).unwrap();
    data.publish(&serde_json::json!({ "pid": std::process::id() })).unwrap();
    let backend = Backend::prepare(&config, data.path()).unwrap();
    let (changes, metrics) = (AccessChanges::default(), Arc::new(Metrics::new()));
    let servers = backend.servers(&config, &changes, &metrics);
    let Backend::Embedded(plan) = backend else { panic!("the default is embedded") };
    let health = Arc::new(Health::new(0));
    let started = super::backend::start_embedded(&plan, &data, None, metrics.clone(), health).await;
    let supervisor = started.unwrap_or_else(|e| panic!("{e}"));
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(supervisor.run(stopped));
    let world = World { live: Live::fixed(config), servers, changes, metrics };
    for sql in [
        "CREATE ROLE joe LOGIN PASSWORD 'secret'",
        "CREATE ROLE analyst",
        "CREATE ROLE ann LOGIN PASSWORD 'secret' IN ROLE analyst",
        "CREATE ROLE weak LOGIN",
        "CREATE DATABASE other",
    ] {
        world.value("postgres", sql).await;
    }

    tables_are_made_once(&world).await;
    tokens_rotate(&world).await;
    browsers_have_sessions(&world).await;
    keys_are_bounded_and_revoked(&world).await;
    roles_decide(&world).await;

    drop(stop);
    running.await.unwrap();
}

async fn tables_are_made_once(world: &World) {
    let nodes = [(); 4].map(|()| Tables::new(world.sql("postgres", "other")));
    assert!(nodes[0].ask("SELECT 1", &[]).await.unwrap().is_none(), "nobody needed them yet");
    let (a, b, c, d) =
        tokio::join!(nodes[0].make(), nodes[1].make(), nodes[2].make(), nodes[3].make());
    for made in [a, b, c, d] {
        made.unwrap();
    }
    let versions = "SELECT string_agg(version::text, ',') FROM rustydb.schema_version";
    let all = (1..=VERSION).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(world.value("other", versions).await, all);
    assert!(Tables::new(world.sql("postgres", "other")).make().await.is_ok(), "again");
    let rights = "SELECT has_schema_privilege('weak', 'rustydb', 'USAGE')";
    assert_eq!(world.value("other", rights).await, "f");

    // Dropped under a running server: they are made anew.
    world.value("other", "DROP SCHEMA rustydb CASCADE").await;
    let count = "SELECT count(*) FROM rustydb.api_keys";
    assert_eq!(nodes[0].run(count, &[]).await.unwrap(), [[Some("0".to_owned())]]);

    world.value("other", "INSERT INTO rustydb.schema_version VALUES (99)").await;
    let newer = Tables::new(world.sql("postgres", "other")).make().await.unwrap_err();
    assert!(newer.message().contains("newer RustyDB"), "{newer}");

    let poor = Tables::new(world.sql("weak", "postgres"));
    let refused = poor.run(count, &[]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AuthorizationFailed);
    let hint = refused.hint().unwrap_or_default();
    assert!(hint.contains("GRANT CREATE ON DATABASE postgres TO weak"), "{hint}");
    assert!(poor.ask(count, &[]).await.unwrap().is_none(), "what needs no table goes on");
}

async fn tokens_rotate(world: &World) {
    let (node, other) = (world.node(), world.node());
    assert!(password(&node, "joe", "wrong").await.is_err());
    let joe = password(&node, "joe", "secret").await.unwrap();
    let Login::Tokens(first) = node.log_in(&joe, false, &visit()).await.unwrap() else {
        panic!("a program gets tokens")
    };
    assert_eq!(first.expires_in, 900);
    // Both nodes take it, without having heard of each other.
    for node in [&node, &other] {
        let identity = bearer(node, &first.access_token).await.unwrap();
        assert_eq!((identity.role.as_str(), identity.is_superuser), ("joe", false));
        let claims = identity.grant.as_ref().unwrap().claims.clone().unwrap();
        assert!(claims.contains("\"sub\":\"joe\""), "{claims}");
        assert!(node.log_in(&identity, false, &visit()).await.is_err(), "needs the password");
    }
    assert!(bearer(&node, &first.refresh_token).await.is_err(), "is for refreshing only");
    assert!(node.refresh(&first.access_token, &visit()).await.is_err());

    let second = node.refresh(&first.refresh_token, &visit()).await.unwrap();
    let third = other.refresh(&second.refresh_token, &visit()).await.unwrap();
    assert_eq!((third.login.as_str(), third.role.as_str()), (first.login.as_str(), "joe"));
    // Somebody has stolen the second one: everything that came of the log-in ends.
    let reused = node.refresh(&second.refresh_token, &visit()).await.unwrap_err();
    assert!(reused.message().contains("used twice"), "{reused}");
    assert!(node.refresh(&third.refresh_token, &visit()).await.is_err());
    assert!(bearer(&node, &third.access_token).await.is_err());
    let wanted = Wanted { event_type: Some(EventType::SuspiciousActivity), ..Wanted::default() };
    assert_eq!(node.audit().recent(&wanted, 9).len(), 1);
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert!(bearer(&other, &third.access_token).await.is_err(), "the other node has heard of it");

    // A role that is made anew is another.
    let Login::Tokens(again) = node.log_in(&joe, false, &visit()).await.unwrap() else {
        panic!("a program gets tokens")
    };
    world.value("postgres", "DROP ROLE joe").await;
    world.value("postgres", "CREATE ROLE joe LOGIN PASSWORD 'secret'").await;
    world.changes.saw("DROP ROLE");
    let error = bearer(&node, &again.access_token).await.unwrap_err();
    assert!(error.message().contains("not the one of then"), "{error}");
    let stored =
        "SELECT count(*) FROM rustydb.refresh_tokens WHERE encode(hash, 'escape') LIKE 'rt_%'";
    assert_eq!(world.value("postgres", stored).await, "0", "no token is stored");
}

async fn browsers_have_sessions(world: &World) {
    let node = world.node();
    let joe = password(&node, "joe", "secret").await.unwrap();
    let Login::Session(session) = node.log_in(&joe, true, &visit()).await.unwrap() else {
        panic!("a browser gets a session")
    };
    let cookie = || Credential::Session(session.session_token.clone());
    let identity = node.credentials(cookie(), &visit()).await.unwrap();
    assert_eq!(identity.role.as_str(), "joe");
    let csrf = session.csrf_token.reveal();
    assert!(node.check_csrf(&session.session_token, Some(csrf)).is_ok());
    for wrong in [None, Some(""), Some("x"), Some(&csrf[1..])] {
        let error = node.check_csrf(&session.session_token, wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CsrfFailed);
    }
    assert!(node.credentials(Credential::Session(Secret::new("st_x")), &visit()).await.is_err());
    node.log_out(&identity, &visit()).await.unwrap();
    assert!(node.credentials(cookie(), &visit()).await.is_err());
    assert!(world.node().credentials(cookie(), &visit()).await.is_err());
}

async fn keys_are_bounded_and_revoked(world: &World) {
    let node = world.node();
    let joe = password(&node, "joe", "secret").await.unwrap();
    let new = NewKey {
        name: "nightly".into(),
        permissions: vec![Permission::parse("read:tables:*").unwrap()],
        addresses: vec!["192.0.2.0/24".parse().unwrap()],
        rate_limit: Some(7),
        ..NewKey::default()
    };
    let (id, key) = node.create_key(&joe, &new, &visit()).await.unwrap();
    assert!(key.reveal().starts_with("sk_live_") && key.reveal().len() == 51);
    let shown = |key: &Secret| Credential::ApiKey(key.clone());
    let identity = node.credentials(shown(&key), &visit()).await.unwrap();
    let grant = identity.grant.clone().unwrap();
    assert_eq!((grant.id.as_deref(), grant.rate_limit), (Some(id.as_str()), Some(7)));
    assert!(bearer(&node, &key).await.is_ok(), "as a bearer too");
    let far = Visit::new(Protocol::Http, Some(IpAddr::from([198, 51, 100, 1])));
    let error = node.credentials(shown(&key), &far).await.unwrap_err();
    assert!(error.message().contains("not for this address"), "{error}");
    let ask = |text: &str| Permission::parse(text).unwrap();
    assert!(node.authorize(&identity, &ask("read:tables:x"), &visit()).await.is_ok());
    let refused = node.authorize(&identity, &ask("execute:queries"), &visit()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AuthorizationFailed);
    assert!(node.create_key(&identity, &new, &visit()).await.is_err(), "no key makes another");

    let brief = NewKey { ttl_secs: Some(1), addresses: Vec::new(), ..new.clone() };
    let (_, brief) = node.create_key(&joe, &brief, &visit()).await.unwrap();
    assert!(node.credentials(shown(&brief), &visit()).await.is_ok());
    let (_, last) = node.create_key(&joe, &new, &visit()).await.unwrap();
    assert_ne!(last, key);
    let full = node.create_key(&joe, &new, &visit()).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::LimitReached);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(node.credentials(shown(&brief), &visit()).await.is_err(), "it has expired");
    assert!(node.create_key(&joe, &new, &visit()).await.is_ok(), "and makes room");

    node.upkeep().await;
    let all = node.list_keys(Some(&joe.role), 100).await.unwrap();
    assert_eq!(all.len(), 4);
    let used = all.iter().find(|info| info.key_id == id).unwrap();
    assert_eq!((used.usage_count, used.name.as_str()), (2, "nightly"));
    assert!(used.last_used.is_some() && used.expires_at.is_none());
    assert_eq!(
        (used.permissions.as_slice(), used.rate_limit),
        (&["read:tables:*".into()][..], Some(7))
    );
    let ann = password(&node, "ann", "secret").await.unwrap();
    assert!(!node.revoke_key(&ann, &id, false, &visit()).await.unwrap(), "it is not hers");
    assert!(node.revoke_key(&joe, &id, false, &visit()).await.unwrap());
    assert!(!node.revoke_key(&joe, &id, false, &visit()).await.unwrap());
    assert!(node.credentials(shown(&key), &visit()).await.is_err());
    assert!(world.node().credentials(shown(&key), &visit()).await.is_err());
    assert!(node.credentials(shown(&last), &visit()).await.is_ok());
    let stored = "SELECT count(*) FROM rustydb.api_keys k WHERE k::text LIKE '%sk_live_%'";
    assert_eq!(world.value("postgres", stored).await, "0", "no key is stored");
}

async fn roles_decide(world: &World) {
    let node = world.node();
    let (joe, ann) =
        (password(&node, "joe", "secret").await.unwrap(), password(&node, "ann", "secret").await);
    let ann = ann.unwrap();
    let may = async |who: &Identity, what: &str| {
        node.authorize(who, &Permission::parse(what).unwrap(), &visit()).await.is_ok()
    };
    assert!(may(&joe, "execute:queries").await);
    assert!(!may(&joe, "admin:backup").await);
    let (names, _) = node.permissions_of(&ann).await.unwrap();
    assert_eq!(names, ["analyst", "user"], "the membership in PostgreSQL counts");
    let keeper = RoleDefinition {
        allows: vec![Permission::parse("admin:backup").unwrap()],
        denies: vec![Permission::parse("*:tables:secret").unwrap()],
        inherits: vec!["monitor".into()],
    };
    node.change_role(&joe, "keeper", Some(keeper), &visit()).await.unwrap();
    assert!(!may(&joe, "admin:backup").await, "he was not given it");
    node.grant_roles(&joe, &joe.role, &["keeper".into()], &visit()).await.unwrap();
    assert!(may(&joe, "admin:backup").await && may(&joe, "read:monitoring").await);
    assert!(!may(&joe, "read:tables:secret").await && may(&ann, "read:tables:secret").await);
    let unknown = ["missing".to_owned()];
    assert!(node.grant_roles(&joe, &joe.role, &unknown, &visit()).await.is_err());
    assert!(world.node().roles().await.unwrap().get("keeper").is_some(), "other nodes see it");
    node.change_role(&joe, "keeper", None, &visit()).await.unwrap();
    assert!(!may(&joe, "admin:backup").await && may(&joe, "read:tables:secret").await);
    let wanted = Wanted { event_type: Some(EventType::RoleChanged), ..Wanted::default() };
    assert_eq!(node.audit().recent(&wanted, 9).len(), 3);
}
