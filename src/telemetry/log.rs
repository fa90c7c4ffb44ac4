//! The log: `tracing` records to standard error, through a bounded queue that never blocks a
//! worker. Secrets, parameter values and SQL texts do not get into records.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, reload};

use crate::config::{LogFormat, LogLevel, Monitoring};

/// Records that may wait for the writer; further ones are dropped.
const QUEUE: usize = 10_000;

/// The running log. It writes out what is queued when the last of it is dropped.
#[derive(Clone)]
pub struct Log {
    level: reload::Handle<LevelFilter, tracing_subscriber::Registry>,
    _writer: Arc<WorkerGuard>,
}

impl Log {
    /// Changes which records are written.
    pub fn set_level(&self, level: LogLevel) {
        // Fails only when the log is gone.
        let _ = self.level.modify(|filter| *filter = filter_of(level));
    }
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

/// Starts logging.
pub fn start(config: &Monitoring) -> Log {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE)
        .lossy(true)
        .finish(std::io::stderr());
    let (filter, level) = reload::Layer::new(filter_of(config.log_level));
    let plain = match config.log_format {
        LogFormat::Plain => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    // A second start (tests in one process) keeps the first subscriber.
    let _ = if plain {
        let ansi = std::io::stderr().is_terminal();
        registry.with(fmt::layer().with_writer(writer).with_ansi(ansi)).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    };
    Log { level, _writer: Arc::new(guard) }
}
