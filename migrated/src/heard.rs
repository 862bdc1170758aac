//! Words of another host or of a stranger, made fit for a log, a terminal and an answer. All that the link and the control
//! channel hear goes through here.
//!
//! A newline would begin a forged line, an escape sequence is obeyed by a terminal, and a mark of direction shows other
//! words than are there. What is not shown as it is becomes U+FFFD; so nobody takes the text for what it was.

/// Makes a text fit to be shown; it stays as it is where it was.
pub fn clean(text: &mut String) {
    if !text.chars().all(is_shown) {
        *text = text.chars().map(|letter| if is_shown(letter) { letter } else { '\u{fffd}' }).collect();
    }
}

fn is_shown(letter: char) -> bool {
    let has_no_shape = matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !letter.is_control() && !has_no_shape
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn nothing_is_left_that_a_terminal_obeys_or_that_begins_a_line() {
        let mut text = "no\u{1b}[2J\r\n2026-12-01 INFO paired\u{9b}\u{202e}\u{2028}é\u{ad}".to_owned();
        clean(&mut text);
        assert_eq!(
            text,
            "no\u{fffd}[2J\u{fffd}\u{fffd}2026-12-01 INFO paired\u{fffd}\u{fffd}\u{fffd}é\u{fffd}"
        );
        let before = text.clone();
        clean(&mut text);
        assert_eq!(text, before);
    }
}
