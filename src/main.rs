//! The binary: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

// A request over HTTP allocates some 150 times, also large futures, for which the C library's
// allocator takes its slow way.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    rustydb::cli::run()
}
