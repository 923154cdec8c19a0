//! What a command says and asks: its output, and questions answered on its input.
//!
//! Tests give it a buffer and prepared answers. Errors do not come here; `ctl::run` prints them.

use std::io::{self, BufRead, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// No text that a command reads from its input is larger; a configuration has kilobytes.
const LARGEST_TEXT: u64 = 4 << 20;

/// The operator gave no answer: the input ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("Aborted!")]
pub struct Aborted;

pub struct Terminal {
    output: Box<dyn Write>,
    input: Input,
}

enum Input {
    Standard,
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests prepare answers"))]
    Prepared(Box<dyn BufRead>),
}

impl std::fmt::Debug for Terminal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

impl Terminal {
    pub fn standard() -> Terminal {
        Terminal { output: Box::new(io::stdout()), input: Input::Standard }
    }

    /// The same with its questions on standard error, where the answer goes to standard output.
    pub fn beside_output() -> Terminal {
        Terminal { output: Box::new(io::stderr()), input: Input::Standard }
    }

    #[cfg(test)]
    pub fn prepared(output: Box<dyn Write>, answers: impl BufRead + 'static) -> Terminal {
        Terminal { output, input: Input::Prepared(Box::new(answers)) }
    }

    /// Its output is that of the process.
    pub fn is_standard(&self) -> bool {
        matches!(self.input, Input::Standard)
    }

    pub fn print(&mut self, text: &str) -> io::Result<()> {
        self.output.write_all(text.as_bytes())?;
        self.output.flush()
    }

    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.print(&format!("{text}\n"))
    }

    /// Empties the window, for a display that is shown again and again.
    pub fn clear(&mut self) -> io::Result<()> {
        self.print("\x1b[2J\x1b[H")
    }

    /// An empty answer means the default.
    pub async fn ask(&mut self, question: &str, default: &str) -> anyhow::Result<String> {
        self.print(&format!("{question} [{default}]: "))?;
        let answer = self.answer().await?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    /// Asks until there is an answer.
    pub async fn ask_for(&mut self, question: &str) -> anyhow::Result<String> {
        loop {
            self.print(&format!("{question}: "))?;
            let answer = self.answer().await?;
            if !answer.is_empty() {
                return Ok(answer);
            }
        }
    }

    /// The same, and what is typed is not shown.
    pub async fn ask_for_secret(&mut self, question: &str) -> anyhow::Result<String> {
        let unseen = matches!(self.input, Input::Standard).then(Unseen::begin).flatten();
        let answer = tokio::select! {
            answer = self.ask_for(question) => answer,
            // It would end the program and leave a terminal that shows nothing.
            _ = tokio::signal::ctrl_c() => Err(Aborted.into()),
        };
        if unseen.is_some() {
            self.line("")?;
        }
        answer
    }

    /// The whole input, for `FILE` being `-`.
    pub fn read_text(&mut self) -> io::Result<String> {
        let mut text = String::new();
        match &mut self.input {
            Input::Standard => io::stdin().lock().take(LARGEST_TEXT).read_to_string(&mut text)?,
            Input::Prepared(answers) => answers.read_to_string(&mut text)?,
        };
        Ok(text)
    }

    /// An empty answer means no; what is neither yes nor no is asked again.
    pub async fn confirm(&mut self, question: &str) -> anyhow::Result<bool> {
        loop {
            self.print(&format!("{question} [y/N]: "))?;
            match self.answer().await?.to_ascii_lowercase().as_str() {
                "y" | "yes" => return Ok(true),
                "n" | "no" | "" => return Ok(false),
                _ => self.line("Error: invalid input")?,
            }
        }
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let length = match &mut self.input {
            // On a thread of its own: the session with the store goes on while the operator thinks.
            Input::Standard => {
                let read = tokio::task::spawn_blocking(|| {
                    let mut line = String::new();
                    io::stdin().read_line(&mut line).map(|length| (length, line))
                });
                let length;
                (length, line) = read.await??;
                length
            }
            Input::Prepared(answers) => answers.read_line(&mut line)?,
        };
        if length == 0 {
            return Err(Aborted.into());
        }
        Ok(line.trim_end_matches(['\n', '\r']).to_owned())
    }
}

/// Local, with five digits of the second, as Patroni's console prints it before a line.
pub fn timestamp() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S.%5f").to_string()
}

/// While it lives, the terminal does not show what is typed.
struct Unseen {
    before: Termios,
}

impl Unseen {
    /// `None` where the input is no terminal.
    fn begin() -> Option<Unseen> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut without_echo = before.clone();
        without_echo.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &without_echo).ok()?;
        Some(Unseen { before })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // The terminal has gone; there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}
