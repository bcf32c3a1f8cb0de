//! The files of the spool: a directory, behind a trait, so that tests can fill it, cut it off and break it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// Named files that are only ever appended to.
pub trait Files: Send {
    /// Names and lengths of all files.
    ///
    /// # Errors
    ///
    /// Returns the error of the system, as all of these do.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// Everything in a file.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;

    /// A part of a file; shorter where the file ends.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    fn read_at(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;

    /// Appends to a file, which is made if it is not there. After an error any part of the bytes may be in it.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file off.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Makes what was appended outlive a power failure.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As [`Self::list`].
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// Files of a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The file that was appended to last.
    open: Option<(String, File)>,
}

impl Directory {
    /// The files of this directory, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be used.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self {
            path: path.to_owned(),
            open: None,
        })
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(open, _)| open != name) {
            let path = self.path.join(name);
            let is_new = !path.exists();
            let file = OpenOptions::new().append(true).create(true).open(path)?;
            if is_new {
                // The name must outlive a power failure as well.
                File::open(&self.path)?.sync_all()?;
            }
            self.open = Some((name.to_owned(), file));
        }
        match &mut self.open {
            Some((_, file)) => Ok(file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Files for Directory {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path.join(name))
    }

    fn read_at(&mut self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::with_capacity(length);
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name)?.set_len(length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| open == name) {
            self.open = None;
        }
        std::fs::remove_file(self.path.join(name))
    }
}
