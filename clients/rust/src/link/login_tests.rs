//! How the client logs in and leaves, against a server made of frames.

use super::link_tests::server;
use crate::protocol::*;
use crate::{AuthKind, Config, Connection, Error};

/// What the client sends first in a log-in, and what it makes of a server that is content at once.
async fn log_in(
    offered: &[AuthMethod],
    change: impl FnOnce(&mut Config),
) -> (AuthMethod, Message, Result<(), Error>) {
    let mut server = server().await;
    server.hello.auth_methods = offered.to_vec();
    let mut config = server.config();
    change(&mut config);
    let serve = async {
        let mut peer = server.greet().await;
        let (id, start) = peer.start().await;
        let second = match start.method {
            AuthMethod::Trust => Message::Ping,
            _ => peer.take().await.1,
        };
        peer.welcome(id, &start.user).await;
        (start.method, second)
    };
    let (tried, (method, second)) = tokio::join!(Connection::connect(config), serve);
    (method, second, tried.map(drop))
}

#[tokio::test]
async fn the_way_to_log_in_is_the_first_that_is_given_and_offered() {
    use AuthMethod as M;
    let all = [M::Trust, M::Password, M::ScramSha256, M::ApiKey, M::Token];
    let secret = || Some("x".into());
    let (method, second, _) = log_in(&all, |config| {
        (config.token, config.api_key, config.password) = (secret(), secret(), secret());
    })
    .await;
    assert_eq!((method, second), (M::Token, Message::Auth(Auth::Token { token: "x".into() })));
    let (method, ..) = log_in(&all, |config| {
        (config.api_key, config.password) = (secret(), secret());
    })
    .await;
    assert_eq!(method, M::ApiKey);
    let (method, ..) = log_in(&all[..3], |config| {
        (config.token, config.password) = (secret(), secret());
    })
    .await;
    assert_eq!(method, M::ScramSha256);
    // A password is never sent as it is unless that was asked for.
    let (method, ..) = log_in(&all[..2], |config| config.password = secret()).await;
    assert_eq!(method, M::Trust);
    assert_eq!(log_in(&all, |_| {}).await.0, M::Trust);
}

#[tokio::test]
async fn a_server_that_asks_for_no_proof_is_content_with_whoever_did_not_ask_for_one() {
    let offered = [AuthMethod::ScramSha256];
    let (_, _, tried) = log_in(&offered, |config| config.password = Some("p".into())).await;
    tried.unwrap();
    let (_, _, tried) = log_in(&offered, |config| {
        config.password = Some("p".into());
        config.auth = Some(AuthKind::Scram);
    })
    .await;
    assert!(tried.unwrap_err().to_string().contains("does not prove itself"));
}

#[tokio::test]
async fn a_password_that_is_missing_is_asked_for() {
    let mut server = server().await;
    server.hello.auth_methods = vec![AuthMethod::Password, AuthMethod::ScramSha256];
    for auth in [None, Some(AuthKind::Scram), Some(AuthKind::Password), Some(AuthKind::Ldap)] {
        let config = Config { auth, ..server.config() };
        let (tried, _) = tokio::join!(Connection::connect(config), server.greet());
        assert!(matches!(tried, Err(Error::PasswordNeeded)), "{auth:?}");
    }
}

#[tokio::test]
async fn a_connection_says_good_bye() {
    let (connection, mut peer) = server().await.connect().await;
    let serve = async {
        assert!(matches!(peer.take().await.1, Message::Close { .. }));
        drop(peer);
    };
    tokio::join!(connection.close(), serve);
}
