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
        assert!(process_memory().iter().any(|(name, bytes)| *name == "resident" && *bytes > 0));
    }
}
