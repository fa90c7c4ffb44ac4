//! A way to PostgreSQL itself for drivers that cannot use its Unix socket: a TCP port whose bytes
//! go there and back unread.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;

use crate::harness::Server;

/// Opens the port; it stays until the end of the process.
pub fn open(server: &Server) -> u16 {
    let socket = server.data_dir.join("run/.s.PGSQL.5432");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            serve(client, &socket);
        }
    });
    port
}

fn serve(client: TcpStream, socket: &PathBuf) {
    // After the test's server has ended, the client learns it from its closed connection.
    let Ok(backend) = UnixStream::connect(socket) else { return };
    client.set_nodelay(true).unwrap();
    let (from_client, to_backend) = (client.try_clone().unwrap(), backend.try_clone().unwrap());
    thread::spawn(move || {
        pass(from_client, &to_backend);
        let _ = to_backend.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        pass(backend, &client);
        let _ = client.shutdown(Shutdown::Both);
    });
}

fn pass(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
