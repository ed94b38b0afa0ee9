//! Tells code from comments and strings.

/// `source` with every comment, string and character literal blanked out. Lines and offsets stay.
pub(super) fn code_only(source: &str) -> String {
    let mut out = source.as_bytes().to_vec();
    let mut at = 0;
    while at < source.len() {
        let (keep, blank) = step(&source[at..]);
        let end = at + keep + blank;
        for byte in out[at + keep..end].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b' ';
        }
        at = end;
    }
    // Only whole characters are blanked, so nothing is lost here.
    String::from_utf8_lossy(&out).into_owned()
}

/// How many bytes of `text` to keep, and how many to blank after them.
fn step(text: &str) -> (usize, usize) {
    let bytes = text.as_bytes();
    match bytes {
        [b'/', b'/', ..] => (0, text.find('\n').unwrap_or(text.len())),
        [b'/', b'*', ..] => (0, block_comment(bytes)),
        [b'"', ..] => (0, quoted(bytes, b'"')),
        // None is a lifetime or a label.
        [b'\'', ..] => char_literal(text).map_or((1, 0), |len| (0, len)),
        _ => {
            // A word at a time, so that an `r` at the end of a name starts no raw string.
            let (word, rest) = text.split_at(word(text));
            let raw = ["r", "br", "cr"].contains(&word).then(|| raw_string(rest)).flatten();
            (word.len(), raw.unwrap_or(0))
        }
    }
}

/// The line numbers on which `word` stands in `code` as a whole word.
pub(super) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let mut lines: Vec<usize> = code
        .match_indices(word)
        .filter(|(at, _)| {
            !code[..*at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
        })
        .map(|(at, _)| super::line_of(code.as_bytes(), at))
        .collect();
    lines.dedup();
    lines
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The length of the word that `text` starts with, or of its first character.
fn word(text: &str) -> usize {
    match text.find(|c| !is_word(c)) {
        Some(0) => text.chars().next().map_or(0, char::len_utf8),
        Some(len) => len,
        None => text.len(),
    }
}

/// The length of the block comment, which can hold others.
fn block_comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        match text.get(at..at + 2) {
            Some(b"/*") => (at, depth) = (at + 2, depth + 1),
            Some(b"*/") => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// The length of the literal up to its closing `quote`.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            byte => {
                at += 1;
                if byte == quote {
                    return at;
                }
            }
        }
    }
    text.len()
}

/// The length of the character literal, or none for a lifetime.
fn char_literal(text: &str) -> Option<usize> {
    let mut chars = text.chars().skip(1);
    let (first, second) = (chars.next()?, chars.next()?);
    (first == '\\' || second == '\'').then(|| quoted(text.as_bytes(), b'\''))
}

/// The length of what follows the `r` of a raw string, or none for a raw identifier.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.trim_start_matches('#');
    let hashes = text.len() - body.len();
    let body = body.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let len = body.find(&close).map_or(body.len(), |at| at + close.len());
    Some(hashes + 1 + len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Masks `source` and squeezes the blanks.
    fn squeezed(source: &str) -> String {
        let code = code_only(source);
        assert_eq!(code.len(), source.len());
        assert_eq!(code.lines().count(), source.lines().count());
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_go() {
        assert_eq!(squeezed("a // x \" y\nb"), "a b");
        assert_eq!(squeezed("//! x\n/// y\nb"), "b");
        assert_eq!(squeezed("a /* x\n /* y */ z */ b"), "a b");
        assert_eq!(squeezed("a /*/ x */ b /* open"), "a b");
        assert_eq!(squeezed("a / b * c"), "a / b * c");
    }

    #[test]
    fn strings_go() {
        assert_eq!(squeezed(r#"f("x", b"y", c"z") g"#), "f( , b , c ) g");
        assert_eq!(squeezed(r#"f("x \" y \\") g"#), "f( ) g");
        assert_eq!(squeezed(r##"f(r"x\", r#"y " z"#, br"w") g"##), "f(r , r , br ) g");
        assert_eq!(squeezed("f(\"x // é\n y\") g"), "f( ) g");
        assert_eq!(squeezed("é(\"x\") // ü"), "é( )");
        assert_eq!(squeezed("a \"open"), "a");
    }

    #[test]
    fn characters_go_and_lifetimes_stay() {
        assert_eq!(squeezed(r#"f('"', '\'', '\\', '\u{22}', b'"', 'é') g"#), "f( , , , , b , ) g");
        assert_eq!(
            squeezed("f::<'a, 'static>(&'b x) 'c: loop"),
            "f::<'a, 'static>(&'b x) 'c: loop"
        );
        assert_eq!(squeezed("'a'..='z' | '_"), "..= | '_");
    }

    #[test]
    fn raw_identifiers_stay() {
        assert_eq!(squeezed("r#type r # for_r\"x\""), "r#type r # for_r");
    }

    #[test]
    fn whole_words_only() {
        let lines = |source: &str| lines_with_word(&code_only(source), "unsafe");
        assert_eq!(lines("fn a() {\n unsafe { b() }\n}\nunsafe impl C {}"), [2, 4]);
        assert_eq!(lines("#[unsafe(no_mangle)]"), [1]);
        assert_eq!(lines("#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]"), [0; 0]);
        assert_eq!(lines("// unsafe\nlet a = \"unsafe\"; /* unsafe */"), [0; 0]);
        assert_eq!(lines("unsafe { unsafe {} }"), [1]);
    }
}
