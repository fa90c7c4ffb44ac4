//! What the operating system knows of this process.

/// Fields of `/proc/self/status`
/// (<https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>) and their names for people.
const FIELDS: [(&str, &str); 6] = [
    ("VmRSS", "resident"),
    ("VmHWM", "resident_peak"),
    ("RssAnon", "resident_anonymous"),
    ("VmSize", "virtual"),
    ("VmPeak", "virtual_peak"),
    ("VmSwap", "swap"),
];

/// Bytes of memory by what they are; empty where the system does not tell.
pub fn process_memory() -> Vec<(&'static str, u64)> {
    read(&std::fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// What a process of PostgreSQL on this machine has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendUsage {
    /// Bytes of memory, without those that processes share.
    pub memory_bytes: u64,
    /// Milliseconds on a processor.
    pub cpu_ms: u64,
    /// Bytes read from disk; `None` = the system does not tell.
    pub read_bytes: Option<u64>,
    /// Bytes written to disk; `None` = the system does not tell.
    pub written_bytes: Option<u64>,
}

/// What that process has used; `None` = there is none, or the system does not tell. Linux only.
pub fn backend_usage(pid: u32) -> Option<BackendUsage> {
    let file = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let status = file("status")?;
    let memory = read(&status).into_iter().find(|(name, _)| *name == "resident_anonymous");
    // Nanoseconds on a processor come first
    // (https://docs.kernel.org/scheduler/sched-stats.html).
    let on_cpu: u64 = file("schedstat")?.split(' ').next()?.parse().ok()?;
    let io = file("io").unwrap_or_default();
    let bytes = |field: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))?;
        line.trim().parse().ok()
    };
    Some(BackendUsage {
        memory_bytes: memory?.1,
        cpu_ms: on_cpu / 1_000_000,
        read_bytes: bytes("read_bytes"),
        written_bytes: bytes("write_bytes"),
    })
}

fn read(status: &str) -> Vec<(&'static str, u64)> {
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    FIELDS.iter().filter_map(|(field, name)| Some((*name, bytes(field)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_others_left_out() {
        let status = "Name:\tx\nVmPeak:\t 2048 kB\nVmRSS:\t      12 kB\nVmSwap:\tmuch\n";
        assert_eq!(read(status), [("resident", 12 << 10), ("virtual_peak", 2 << 20)]);
        assert!(read("").is_empty());
        let own = backend_usage(std::process::id()).unwrap();
        assert!(own.memory_bytes > 0 && own.cpu_ms < 1_000_000_000);
        assert_eq!(backend_usage(u32::MAX), None);
        assert!(process_memory().iter().any(|(name, bytes)| *name == "resident" && *bytes > 0));
    }
}
