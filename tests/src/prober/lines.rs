//! Cuts what comes from a socket into lines, however it comes.

/// Bytes of a line that is not whole yet.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Take bytes in, and give the lines that are whole now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_are_found_wherever_the_pieces_end() {
        let mut lines = Lines::default();
        assert!(lines.push(b"1").is_empty());
        assert_eq!(lines.push(b"2\n34\n5"), ["12", "34"]);
        assert_eq!(lines.push(b"\n"), ["5"]);
    }
}
