//! Names that somebody may have meant.

/// Of `names`, the one nearest to `text`, if it is near: at most a third of its letters differ.
#[must_use]
pub fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (distance(text, name), name))
        .filter(|&(distance, name)| distance * 3 <= name.len().max(text.len()))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_near_and_another_word_is_not() {
        let names = ["virginia", "oregon", "ireland"];
        assert_eq!(nearest("virgina", names.into_iter()), Some("virginia"));
        assert_eq!(nearest("ireladn", names.into_iter()), Some("ireland"));
        assert_eq!(nearest("tokyo", names.into_iter()), None);
    }
}
