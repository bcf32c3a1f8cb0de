//! Where answers go: data to stdout, talk to stderr, colour only where someone sees it.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::{
    args::{Colour, Format, Global},
    exit::{Exit, Failure},
    table::Table,
};

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The form asked for.
    pub format: Format,
    /// Whether to stay within ASCII.
    pub ascii: bool,
    /// Whether bad news turn into exit code 3.
    pub check: bool,
    colour: bool,
}

/// What a text means; the colour only repeats it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// Stands out.
    Strong,
    /// Unimportant.
    Quiet,
    /// Worse than it should be.
    Warn,
    /// Does not work.
    Bad,
}

impl Tone {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("1"),
            Self::Quiet => Some("2"),
            Self::Warn => Some("33"),
            Self::Bad => Some("1;31"),
        }
    }
}

impl Output {
    /// As the options and the environment ask for.
    #[must_use]
    pub fn new(global: &Global) -> Self {
        let colour = colour(global.color, io::stdout().is_terminal());
        Self {
            format: global.output,
            ascii: global.ascii,
            check: global.check,
            colour,
        }
    }

    /// The text in the colour of its tone.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        match tone.code() {
            Some(code) if self.colour => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }

    /// Writes text for people to stdout.
    ///
    /// # Errors
    ///
    /// Returns the failure to write; it is silent when the reader went away.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        let plain;
        let text = match self.ascii {
            true => {
                plain = ascii(text);
                &plain
            }
            false => text,
        };
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// Writes one line to stdout.
    ///
    /// # Errors
    ///
    /// As [`Output::text`].
    pub fn line(&self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Tells people something that is no data.
    pub fn talk(&self, text: &str) {
        // If nobody can be told, there is nobody to tell that.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Writes a list: `whole` is the API's answer, `rows` its elements, `table` the same for people, `head` what
    /// people read above it.
    ///
    /// # Errors
    ///
    /// As [`Output::text`].
    pub fn list<T: Serialize>(
        &self,
        whole: &impl Serialize,
        rows: &[T],
        head: &str,
        table: &Table,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.text(&pretty(whole)?),
            Format::Jsonl => rows.iter().try_for_each(|row| self.line(&compact(row)?)),
            Format::Csv => self.text(&table.csv()),
            Format::Name => self.text(&table.names()),
            Format::Table => self.text(&format!("{head}{}", table.render(self, false))),
            Format::Wide => self.text(&format!("{head}{}", table.render(self, true))),
        }
    }

    /// Writes one thing: `whole` is the API's answer, `text` the same for people.
    ///
    /// # Errors
    ///
    /// As [`Output::text`], and a usage failure where the form makes no sense.
    pub fn one(
        &self,
        whole: &impl Serialize,
        text: impl FnOnce(&Self) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.text(&pretty(whole)?),
            Format::Jsonl => self.line(&compact(whole)?),
            Format::Table | Format::Wide => self.text(&text(self)),
            Format::Csv | Format::Name => Err(Failure::new(
                Exit::Usage,
                "this answer is no list, so it has no csv or name form",
            )
            .step("use -o table or -o json")),
        }
    }

    /// The exit code of an answer.
    #[must_use]
    pub const fn verdict(&self, good: bool) -> Exit {
        if self.check && !good {
            Exit::BadNews
        } else {
            Exit::Done
        }
    }
}

/// Says on stderr what failed and what to do.
pub fn explain(global: &Global, failure: &Failure) {
    if failure.silent {
        return;
    }
    let colour = colour(global.color, io::stderr().is_terminal());
    let paint = |code: &str, text: &str| {
        if colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut text = format!("{} {:#}\n", paint("1;31", "error:"), failure.error);
    for (index, step) in failure.steps.iter().enumerate() {
        let label = if index == 0 { "do" } else { "  " };
        text.push_str(&format!("  {label}     {step}\n"));
    }
    let text = if global.ascii { ascii(&text) } else { text };
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn colour(choice: Colour, terminal: bool) -> bool {
    match choice {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => {
            let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            terminal && !forbidden && !dumb
        }
    }
}

fn pretty(value: &impl Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(anyhow::Error::from)?;
    text.push('\n');
    Ok(text)
}

fn compact(value: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string(value).map_err(anyhow::Error::from)?)
}

/// The characters that this program uses, in ASCII.
fn ascii(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '▲' => plain.push('!'),
            '✕' => plain.push('X'),
            '●' | '·' => plain.push('.'),
            '○' => plain.push('o'),
            '✓' => plain.push('+'),
            '→' => plain.push_str("->"),
            '…' => plain.push_str("..."),
            'µ' => plain.push('u'),
            '≥' => plain.push_str(">="),
            '≤' => plain.push_str("<="),
            '×' => plain.push('x'),
            '░' => plain.push('.'),
            '▒' => plain.push('+'),
            '▓' => plain.push('%'),
            '█' => plain.push('#'),
            other if other.is_ascii() => plain.push(other),
            _ => plain.push('?'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_has_a_letter_for_every_mark() {
        assert_eq!(ascii("▲ 3 µs → …"), "! 3 us -> ...");
    }
}
