//! Errors of calls: a stable word, sometimes with a detail after it.

use std::fmt;

/// Why a call reverts. Its text begins with a stable word, the same as in the vault of the Ethereum family.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    pub word: &'static str,
    detail: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word)?;
        if !self.detail.is_empty() {
            write!(f, " {}", self.detail)?;
        }
        Ok(())
    }
}

/// Return an error of one word.
pub fn fail(word: &'static str) -> Error {
    Error { word, detail: String::new() }
}

/// Return an error with what the chain or a token said.
pub fn fail_with(word: &'static str, detail: impl fmt::Display) -> Error {
    Error { word, detail: detail.to_string() }
}

/// Fail with `word` unless `condition` holds.
pub fn require(condition: bool, word: &'static str) -> Result<()> {
    if condition {
        Ok(())
    } else {
        Err(fail(word))
    }
}
