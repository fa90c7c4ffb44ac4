//! Clients that work through the same pool beside a test, so that the test's own clients keep no
//! backend by luck. They watch that nothing of anybody else reaches them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::Server;
use crate::raw::{Wire, bind, execute, parse, render, sync};

/// Transactions until a client comes back as a new one, as a session's pool needs it.
const SESSION: usize = 40;

pub struct Noise {
    done: Arc<AtomicBool>,
    workers: Vec<JoinHandle<usize>>,
}

impl Noise {
    /// Starts this many clients of a server without passwords.
    pub fn start(server: &'static Server, clients: usize) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let worker = |number| {
            let done = Arc::clone(&done);
            std::thread::spawn(move || work(server, number, &done))
        };
        Self { workers: (0..clients).map(worker).collect(), done }
    }

    /// Ends them; returns how often one of them found itself on another backend than before.
    pub fn stop(mut self) -> usize {
        self.done.store(true, Ordering::Relaxed);
        let workers = std::mem::take(&mut self.workers);
        workers.into_iter().map(|worker| worker.join().expect("the others work")).sum()
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

fn work(server: &Server, number: usize, done: &AtomicBool) -> usize {
    let mut moves = 0;
    while !done.load(Ordering::Relaxed) {
        let mut wire = Wire::to(server).ready();
        let memory = format!("{}MB", number + 1);
        wire.values(&format!("set work_mem = '{memory}'"));
        wire.send(&[parse("noise", &format!("select $1::int + {number}"), &[]), sync()].concat());
        wire.until(b'Z');
        wire.values(&format!("prepare noise_sql as select {number}"));
        let mut last = Vec::new();
        for turn in 0..SESSION {
            if done.load(Ordering::Relaxed) {
                break;
            }
            transaction(&mut wire, turn, number, &memory);
            let now = wire.values("select pg_backend_pid()");
            moves += usize::from(!last.is_empty() && last != now);
            last = now;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    moves
}

fn transaction(wire: &mut Wire, turn: usize, number: usize, memory: &str) {
    let number = number.to_string();
    match turn % 6 {
        0 => {
            wire.values("begin");
            let pid = wire.values("select pg_backend_pid()");
            assert_eq!(wire.values("select pg_backend_pid()"), pid);
            wire.values("commit");
        }
        1 => {
            let run = [bind("", "noise", &[Some(b"0")], (0, 0)), execute("", 0), sync()].concat();
            wire.send(&run);
            let messages = wire.until(b'Z');
            let row = messages.iter().find(|m| m.0 == b'D').map(|m| m.1[6..].to_vec());
            assert_eq!(row, Some(number.into_bytes()), "{}", render(&messages));
        }
        2 => assert_eq!(wire.values("execute noise_sql"), [number]),
        3 => assert_eq!(wire.values("show work_mem"), [memory]),
        4 => {
            let sql = "select current_setting('search_path') || current_setting('role') \
                || current_setting('datestyle') || current_user || session_user \
                || (select count(*) from pg_cursors)";
            assert_eq!(wire.values(sql), ["\"$user\", publicnoneISO, MDYrustydbrustydb0"]);
        }
        _ => assert_eq!(wire.values("select 42"), ["42"]),
    }
}
