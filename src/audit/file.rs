//! A file that is appended to, and set aside when it is long.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file: `path`, and older ones `path.1`, `path.2`, …
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
}

impl Rotating {
    /// Opens the file or makes it; others cannot read it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append_to(path)? })
    }

    /// Appends whole lines in one write, to a new file if this one has `longest` bytes; `files` are
    /// kept.
    pub(super) fn append(&mut self, lines: &[u8], longest: u64, files: u32) -> io::Result<()> {
        if self.file.metadata()?.len() >= longest {
            self.rotate(files)?;
        }
        self.file.write_all(lines)
    }

    fn rotate(&mut self, files: u32) -> io::Result<()> {
        let own = self.file.metadata()?.ino();
        // Another process, which takes over from this one, may have been faster.
        if std::fs::metadata(&self.path).is_ok_and(|now| now.ino() == own) {
            let of = |number: u32| match number {
                0 => self.path.clone(),
                number => {
                    let mut path = self.path.clone().into_os_string();
                    path.push(format!(".{number}"));
                    PathBuf::from(path)
                }
            };
            for number in (0..files.saturating_sub(1)).rev() {
                match std::fs::rename(of(number), of(number + 1)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            if files <= 1 {
                std::fs::remove_file(&self.path)?;
            }
        }
        self.file = append_to(&self.path)?;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_files_are_kept_up_to_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = Rotating::open(&path).unwrap();
        for n in 0..10 {
            file.append(format!("{n}\n").as_bytes(), 4, 3).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
        assert_eq!(read("log").as_deref(), Some("8\n9\n"));
        assert_eq!(read("log.1").as_deref(), Some("6\n7\n"));
        assert_eq!((read("log.2").as_deref(), read("log.3")), (Some("4\n5\n"), None));
        // Another process sets the file aside: its new one is taken.
        std::fs::rename(&path, dir.path().join("log.9")).unwrap();
        std::fs::write(&path, "other\n").unwrap();
        file.append(b"x\n", 4, 3).unwrap();
        assert_eq!(read("log").as_deref(), Some("other\nx\n"));
    }
}
