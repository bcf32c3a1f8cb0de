//! Server-sent events, read as they come (HTML Living Standard, section 9.2.6).

use std::{
    io::{self, BufRead, BufReader, Read},
    time::Duration,
};

/// The longest line that is read. A snapshot of 200 regions has some 20 MB.
const MAX_LINE: u64 = 64 << 20;

/// One event.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Event {
    /// What to go on after; empty if the stream gave none.
    pub id: String,
    /// What it is: `message` unless it says so.
    pub name: String,
    /// What it says.
    pub data: String,
}

/// The events of a stream.
#[derive(Debug)]
pub struct Events<R> {
    lines: BufReader<R>,
    id: String,
    /// How long to wait before coming again, if the stream says so.
    pub retry: Option<Duration>,
}

impl<R: Read> Events<R> {
    /// Reads a stream from its beginning.
    pub fn new(stream: R) -> Self {
        Self {
            lines: BufReader::new(stream),
            id: String::new(),
            retry: None,
        }
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// Returns why the stream cannot be read on.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        let (mut name, mut data) = (String::new(), None::<String>);
        loop {
            let Some(line) = self.line()? else {
                // What has no end is no event.
                return Ok(None);
            };
            if line.is_empty() {
                let Some(data) = data.take() else {
                    name.clear();
                    continue;
                };
                if name.is_empty() {
                    "message".clone_into(&mut name);
                }
                let id = self.id.clone();
                return Ok(Some(Event { id, name, data }));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => match &mut data {
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                    None => data = Some(value.to_owned()),
                },
                "id" if !value.contains('\0') => value.clone_into(&mut self.id),
                "retry" => {
                    self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
                }
                _ => {}
            }
        }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        self.lines
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return match line.len() as u64 + 1 >= MAX_LINE {
                true => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a line is too long",
                )),
                false => Ok(None),
            };
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<Event> {
        let mut events = Events::new(text);
        let mut all = Vec::new();
        while let Some(event) = events.next_event().unwrap() {
            all.push(event);
        }
        all
    }

    fn event(id: &str, name: &str, data: &str) -> Event {
        Event {
            id: id.to_owned(),
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_read_as_the_standard_writes_them() {
        let text = b"retry: 10\n\n:\n\nid: 1\nevent: a\ndata: x\ndata:y\n\r\ndata\n\nevent: none\n\nid: 2\r\ndata: z\r\n\r\ndata: half";
        assert_eq!(
            read(text),
            [
                event("1", "a", "x\ny"),
                event("1", "message", ""),
                event("2", "message", "z")
            ]
        );
    }

    #[test]
    fn any_bytes_are_events_or_an_end() {
        bolero::check!().with_type().for_each(|bytes: &Vec<u8>| {
            read(bytes);
        });
    }
}
