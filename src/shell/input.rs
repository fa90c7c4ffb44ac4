//! Where lines come from: the terminal with a history, a file, standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use rustyline::error::ReadlineError;
use rustyline::history::{FileHistory, History};
use rustyline::{Config, Editor};

/// Lines that are remembered.
const HISTORY: usize = 2000;

/// One answer of a source.
pub(super) enum Line {
    /// A line without its end.
    Text(String),
    /// Ctrl-C: what was typed is not wanted.
    Interrupted,
    /// There are no more.
    End,
}

/// A source of lines.
pub(super) enum Source {
    /// Somebody types.
    Terminal(Box<Terminal>),
    /// A file, or standard input.
    Script {
        /// For messages; none = there is no need to say.
        name: Option<String>,
        lines: Box<dyn BufRead>,
        number: usize,
    },
}

/// The editor, and what is remembered.
pub(super) struct Terminal {
    editor: Editor<(), FileHistory>,
    file: Option<PathBuf>,
    /// Lines of the statement that is being typed.
    typed: Vec<String>,
}

impl Source {
    /// The terminal, with the history of `~/.rustydb_history` (or RUSTYDB_HISTORY).
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn terminal() -> io::Result<Self> {
        let config = Config::builder().max_history_size(HISTORY);
        let config = config.map_err(io::Error::other)?.auto_add_history(false).build();
        let editor = Editor::with_config(config).map_err(io::Error::other)?;
        let home =
            || std::env::var_os("HOME").map(|home| Path::new(&home).join(".rustydb_history"));
        let file = std::env::var_os("RUSTYDB_HISTORY").map(PathBuf::from).or_else(home);
        let mut terminal = Terminal { editor, file, typed: Vec::new() };
        if let Some(file) = &terminal.file {
            // There is none the first time.
            let _ = terminal.editor.load_history(file);
        }
        Ok(Self::Terminal(Box::new(terminal)))
    }

    /// Standard input.
    pub(super) fn standard_input() -> Self {
        let lines = Box::new(BufReader::new(io::stdin()));
        Self::Script { name: None, lines, number: 0 }
    }

    /// A file; `-` = standard input.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let (name, lines): (String, Box<dyn BufRead>) = match path == Path::new("-") {
            true => ("<stdin>".into(), Box::new(BufReader::new(io::stdin()))),
            false if path.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            false => (path.display().to_string(), Box::new(BufReader::new(File::open(path)?))),
        };
        Ok(Self::Script { name: Some(name), lines, number: 0 })
    }

    /// The next line.
    ///
    /// # Errors
    /// It cannot be read, or is no UTF-8.
    pub(super) fn line(&mut self, prompt: &str) -> io::Result<Line> {
        match self {
            Self::Terminal(terminal) => match terminal.editor.readline(prompt) {
                Ok(line) => {
                    terminal.typed.push(line.clone());
                    Ok(Line::Text(line))
                }
                Err(ReadlineError::Interrupted) => {
                    terminal.typed.clear();
                    Ok(Line::Interrupted)
                }
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(e) => Err(io::Error::other(e)),
            },
            Self::Script { lines, number, .. } => {
                let mut line = String::new();
                if lines.read_line(&mut line)? == 0 {
                    return Ok(Line::End);
                }
                *number += 1;
                let end = line.trim_end_matches(['\n', '\r']).len();
                line.truncate(end);
                // A byte-order mark that some editors write.
                if *number == 1 && line.starts_with('\u{feff}') {
                    line.drain(..'\u{feff}'.len_utf8());
                }
                Ok(Line::Text(line))
            }
        }
    }

    /// Where in a script the last line was, to begin a message with.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Script { name: Some(name), number, .. } => format!("rustydb:{name}:{number}: "),
            Self::Terminal(_) | Self::Script { .. } => String::new(),
        }
    }

    /// Remembers what was typed since the last time, as one entry.
    pub(super) fn remember(&mut self) {
        let Self::Terminal(terminal) = self else { return };
        let entry = std::mem::take(&mut terminal.typed).join("\n");
        // A password should not lie around.
        let is_secret = entry.to_lowercase().contains("password");
        if entry.trim().is_empty() || is_secret {
            return;
        }
        let _ = terminal.editor.add_history_entry(entry);
        if let Some(file) = &terminal.file {
            let history: &mut FileHistory = terminal.editor.history_mut();
            // Without a home it is forgotten.
            let _ = history.append(file);
        }
    }
}
