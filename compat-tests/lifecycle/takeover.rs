//! `rustydb --takeover`: the next process gets the listening sockets, and no client notices.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{self, Builder, Server, eventually, is_alive, signal_process};
use crate::{Client, PlainPostgres, SOON, get, http_query, is_root, refuses, sqlstate};

fn builder(plain: &PlainPostgres) -> Builder {
    Server::builder().arg("--backend").arg(&plain.url())
}

fn client(server: &Server) -> Client {
    try_client(server, "127.0.0.1").unwrap()
}

fn try_client(server: &Server, host: &str) -> Result<Client, tokio_postgres::Error> {
    let (role, password) = (PlainPostgres::SUPERUSER, PlainPostgres::PASSWORD);
    Client::connect_to(host, server.port, role, password, "postgres")
}

/// Clients that come and go without a pause; each counts what it has written for certain.
struct Crowd {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Crowd {
    fn start(server: &Server) -> Self {
        let crowd = Self { stop: Arc::default(), written: Arc::default(), threads: Vec::new() };
        let (port, sockets) = (server.port, server.socket_dir.display().to_string());
        let query = server.url("/api/v1/query");
        let (role, password) = (PlainPostgres::SUPERUSER, PlainPostgres::PASSWORD);
        let insert = "insert into kept values (1)";
        let visit = move |host: &str| {
            let client = Client::connect_to(host, port, role, password, "postgres")
                .expect("nobody is refused");
            client.value(insert).expect("a client that was let in may work");
        };
        let over_unix = visit;
        let post = move |agent: &ureq::Agent| {
            let answer = agent
                .post(&query)
                .header("authorization", crate::basic_header(role, password))
                .content_type("application/json")
                .send(format!(r#"{{"sql": "{insert}"}}"#));
            let mut answer = answer.expect("a request is answered");
            answer.body_mut().read_to_string().unwrap();
        };
        let (kept_alive, post_anew) = (ureq::Agent::new_with_defaults(), post.clone());
        let stays = Client::connect_to("127.0.0.1", port, role, password, "postgres").unwrap();
        let transaction = move || {
            for sql in ["begin", insert, "select pg_sleep(0.2)", "commit"] {
                stays.value(sql).expect("who is inside stays inside");
            }
        };
        crowd
            .with(move || visit("127.0.0.1"))
            .with(move || over_unix(&sockets))
            .with(move || post_anew(&ureq::Agent::new_with_defaults()))
            .with(move || post(&kept_alive))
            .with(transaction)
    }

    fn with(mut self, once: impl Fn() + Send + 'static) -> Self {
        let (stop, written) = (self.stop.clone(), self.written.clone());
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                once();
                written.fetch_add(1, Ordering::Relaxed);
            }
        }));
        self
    }

    /// Ends the clients; returns how many rows they have written.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client failed"));
        self.written.load(Ordering::Relaxed)
    }
}

#[test]
fn three_restarts_in_the_middle_of_work_lose_nobody() {
    let plain = PlainPostgres::start();
    plain.connect().value("create table kept (n int)").unwrap();
    let first = builder(&plain).start();
    let idle = client(&first);
    idle.value("set application_name = 'sleeper'").unwrap();
    let crowd = Crowd::start(&first);
    let mut servers = vec![first];
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        let next = builder(&plain).taking_over(servers.last().unwrap()).start();
        assert_eq!((next.port, next.api_port), (servers[0].port, servers[0].api_port));
        servers.push(next);
    }
    std::thread::sleep(Duration::from_millis(700));
    let (mut last, mut old) = (servers.pop().unwrap(), servers);
    eventually("clients of the others", SOON, || {
        last.metric("rustydb_takeover_clients_left") >= 2.0
    });
    last.expect_metric("rustydb_takeovers_total{result=\"done\"}", 1.0);
    let written = crowd.end();
    assert_eq!(plain.connect().value("select count(*) from kept").unwrap(), written.to_string());
    assert!(written > 100, "{written}");
    // The one in the middle has no clients of its own; cancel requests come through it.
    assert!(old.iter().all(|server| is_alive(server.pid())));
    assert_eq!(idle.value("show application_name").unwrap(), "sleeper");
    drop(idle);
    for server in &mut old {
        assert_eq!(server.wait(), Some(0), "{}", server.log());
    }
    let sockets = last.socket_dir.to_str().unwrap();
    assert_eq!(try_client(&last, sockets).unwrap().value("select 1").unwrap(), "1");
    eventually("nobody elsewhere", SOON, || last.metric("rustydb_takeover_clients_left") == 0.0);
    assert_eq!(last.stop(), Some(0));
    assert_eq!(std::fs::read_dir(&last.socket_dir).unwrap().count(), 0);
    assert!(!last.data_dir.join("takeover.sock").exists());
    assert!(try_client(&last, "127.0.0.1").is_err());
    // The lock went from hand to hand and is free.
    assert!(builder(&plain).data_dir(&last.data_dir).start().ready.contains("ready"));
}

#[test]
fn a_new_process_that_does_not_start_changes_nothing() {
    let plain = PlainPostgres::start();
    let old = builder(&plain).start();
    let inside = client(&old);
    let nowhere = format!("postgresql://me@127.0.0.1:{}/app", harness::free_port());
    let unreachable = Server::builder().arg("--backend").arg(&nowhere).taking_over(&old);
    refuses(unreachable, 3, &["cannot be reached"]);
    eventually("it is noted", SOON, || {
        old.metric("rustydb_takeovers_total{result=\"failed\"}") == 1.0
    });
    old.log_line(&["goes on serving"]);
    // One that is killed while it waits for its PostgreSQL.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mute = format!("postgresql://me@{}/app?sslmode=disable", silent.local_addr().unwrap());
    let mut killed = harness::command(harness::binary())
        .args(["--takeover", "--backend", &mute, "--port", "0", "--api-port", "0"])
        .args(["--metrics-port", "0", "--unix-socket-dir", "none", "--data-dir"])
        .arg(&old.data_dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    silent.accept().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    eventually("that, too", SOON, || {
        old.metric("rustydb_takeovers_total{result=\"failed\"}") == 2.0
    });
    assert_eq!(inside.value("select 1").unwrap(), "1");
    let sockets = old.socket_dir.to_str().unwrap();
    for host in ["127.0.0.1", sockets] {
        assert_eq!(try_client(&old, host).unwrap().value("select 2").unwrap(), "2");
    }
    assert_eq!(get(&old.url("/health/ready"), None).0, 200);
    let lock = std::fs::read_to_string(old.data_dir.join("rustydb.lock")).unwrap();
    assert!(lock.contains(&format!("\"pid\":{}", old.pid())), "{lock}");
    let another = builder(&plain).data_dir(&old.data_dir);
    refuses(another, 1, &["another RustyDB", "is running"]);
    let new = builder(&plain).taking_over(&old).start();
    assert_eq!(client(&new).value("select 3").unwrap(), "3");
}

#[test]
fn a_cancel_request_finds_its_session_in_an_older_process() {
    let plain = PlainPostgres::start();
    let first = builder(&plain).start();
    let [near, far] = [(), ()].map(|()| client(&first));
    let second = builder(&plain).taking_over(&first).start();
    let middle = client(&second);
    let _third = builder(&plain).taking_over(&second).start();
    for (client, name) in [(near, "one"), (middle, "two")] {
        let (token, observer) = (client.client.cancel_token(), plain.connect());
        let canceller = std::thread::spawn(move || {
            let running = format!(
                "select pid from pg_stat_activity where state = 'active' \
                 and query like 'select ''{name}'', pg_sleep%'"
            );
            eventually("it runs", SOON, || !observer.value(&running).unwrap().is_empty());
            observer.runtime.block_on(token.cancel_query(tokio_postgres::NoTls)).unwrap();
        });
        let begun = Instant::now();
        let slept = client.value(&format!("select '{name}', pg_sleep(60)"));
        assert_eq!(sqlstate(&slept.expect_err("a cancelled statement")), "57014");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        canceller.join().unwrap();
        assert_eq!(client.value("select 1").unwrap(), "1", "the session goes on");
    }
    // Who is not meant is not hit.
    assert_eq!(far.value("select 2").unwrap(), "2");
}

#[test]
fn clients_may_stay_for_as_long_as_the_configuration_says() {
    let plain = PlainPostgres::start();
    plain.connect().value("create table kept (n int)").unwrap();
    let mut first = builder(&plain).set("server.takeover_stay_secs=2").start();
    let (idle, busy) = (client(&first), client(&first));
    busy.value("begin").unwrap();
    busy.value("insert into kept values (1)").unwrap();
    let begun = Instant::now();
    let mut second = builder(&plain).taking_over(&first).start();
    assert_eq!(idle.value("select 1").unwrap(), "1");
    let last = idle.last_word().expect("a FATAL");
    assert_eq!((last.code().code(), last.severity()), ("57P01", "FATAL"));
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    busy.value("commit").unwrap();
    assert_eq!(busy.last_word().expect("a FATAL").code().code(), "57P01");
    assert_eq!(first.wait(), Some(0));
    assert_eq!(client(&second).value("select count(*) from kept").unwrap(), "1");
    // SIGTERM does not wait for the end of the stay.
    let staying = client(&second);
    let third = builder(&plain).taking_over(&second).start();
    // In the moment in which it learns that it is replaced, a process may still take a client.
    std::thread::sleep(Duration::from_millis(500));
    let inside = client(&third);
    second.signal("TERM");
    assert_eq!(staying.last_word().expect("a FATAL").code().code(), "57P01");
    assert_eq!(second.wait(), Some(0));
    assert_eq!(inside.value("select 1").unwrap(), "1");
}

#[test]
fn what_cannot_be_taken_over_says_why() {
    let plain = PlainPostgres::start();
    let home = harness::temp_dir();
    let nobody = builder(&plain).data_dir(&home.path().join("none")).arg("--takeover");
    refuses(nobody, 2, &["cannot open the data directory"]);
    let mut stopped = builder(&plain).start();
    assert_eq!(stopped.stop(), Some(0));
    refuses(builder(&plain).taking_over(&stopped), 1, &["nobody is running", "--takeover"]);
    let embedded = Server::start();
    let same = Server::builder().taking_over(&embedded);
    refuses(same, 2, &["--takeover needs an external PostgreSQL", "stop that process"]);
    let other = builder(&plain).taking_over(&embedded);
    refuses(other, 1, &["embedded PostgreSQL, which ends with it"]);
    assert_eq!(embedded.psql("select 1;").code, Some(0));
}

#[test]
fn another_user_cannot_take_over() {
    if !is_root() {
        eprintln!("skipped: it needs root to be two users");
        return;
    }
    let plain = PlainPostgres::start();
    let old = builder(&plain).start();
    let socket = old.data_dir.join("takeover.sock");
    let foreign = || {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
        let temp = harness::temp_dir();
        // The build's folder may be one that this user cannot enter.
        let program = temp.path().join("rustydb");
        std::fs::copy(harness::binary(), &program).unwrap();
        let mut rustydb = harness::command(program.to_str().unwrap());
        std::os::unix::process::CommandExt::uid(&mut rustydb, nobody);
        let output = rustydb
            .args(["--takeover", "--backend", &plain.url(), "--metrics-port", "0"])
            .args(["--port", "0", "--api-port", "0", "--unix-socket-dir", "none", "--data-dir"])
            .arg(&old.data_dir)
            .current_dir("/")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", crate::stderr(&output));
        crate::stderr(&output)
    };
    assert!(foreign().contains("Permission denied"));
    // Even when the file lets everybody in, the process at its end does not.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&socket, everybody).unwrap();
    let told = foreign();
    assert!(told.contains("may not take over"), "{told}");
    old.expect_metric("rustydb_takeovers_total{result=\"refused\"}", 1.0);
    assert_eq!(client(&old).value("select 1").unwrap(), "1");
}

#[test]
fn connections_with_http_2_are_told_to_go_over() {
    let plain = PlainPostgres::start();
    let mut old = builder(&plain).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let live = || axum::http::Request::get(old.url("/health/live")).body(()).unwrap();
    let (mut requests, connection) = runtime.block_on(async {
        let to = ("127.0.0.1", old.api_port);
        let socket = tokio::net::TcpStream::connect(to).await.unwrap();
        let (requests, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let (answer, _) = requests.send_request(live(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        (requests, connection)
    });
    let _new = builder(&plain).taking_over(&old).start();
    // Nothing was in work, so this is its end; who asks again comes to the new process.
    let ended = runtime.block_on(async { tokio::time::timeout(SOON, connection).await });
    assert!(ended.unwrap().unwrap().is_ok());
    assert!(runtime.block_on(std::future::poll_fn(|cx| requests.poll_ready(cx))).is_err());
    assert_eq!(old.wait(), Some(0), "{}", old.log());
}

#[test]
fn sigusr2_starts_the_next_process_and_the_service_manager_hears_of_it() {
    let plain = PlainPostgres::start();
    let home = harness::temp_dir();
    let path = home.path().join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(SOON)).unwrap();
    let hear = || {
        let mut bytes = [0; 256];
        let length = notify.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut old = builder(&plain).env("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    assert_eq!(hear(), format!("READY=1\nMAINPID={}\n", old.pid()));
    let inside = client(&old);
    old.signal("USR2");
    let told = hear();
    let pid = told.strip_prefix("READY=1\nMAINPID=").unwrap().trim().parse::<i32>().unwrap();
    assert_ne!(pid, old.pid());
    assert_eq!(inside.value("select 1").unwrap(), "1");
    drop(inside);
    assert_eq!(old.wait(), Some(0), "{}", old.log());
    assert_eq!(
        http_query(&old, PlainPostgres::SUPERUSER, PlainPostgres::PASSWORD, "select 1").0,
        200
    );
    assert_eq!(client(&old).value("select 1").unwrap(), "1");
    signal_process(pid, "TERM");
    assert_eq!(hear(), format!("STOPPING=1\nMAINPID={pid}\n"));
    eventually("its end", SOON, || !is_alive(pid));
}

#[test]
fn sockets_of_the_service_manager_survive_a_stop() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = "exec 3<&0 </dev/null; \
                  LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=postgres exec \"$0\" \"$@\"";
    let socket = || listener.try_clone().unwrap();
    let home = harness::temp_dir();
    let data = home.path().join("data");
    let start = || Server::builder().data_dir(&data).script(script, socket()).start();
    let mut server = start();
    assert_eq!(server.port, port);
    assert_eq!(server.psql("select 1;").code, Some(0));
    assert_eq!(server.stop(), Some(0));
    // Nobody accepts now; the client waits in the kernel's queue and is not refused.
    let mut psql = server.psql_command();
    let psql = psql.args(["-Atc", "select 7"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let again = start();
    let output = psql.wait_with_output().unwrap();
    assert_eq!(crate::stdout(&output), "7\n", "{}", again.log());
    let nobodys = Server::builder().script(&script.replace("=postgres", "=other"), socket());
    refuses(nobodys, 2, &["of no address of network, api or monitoring"]);
}
