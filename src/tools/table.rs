//! Tables in columns of a least width, the way Kafka's tools lay them out (pure).

/// A column: its heading, and how wide it is at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    heading: &'static str,
    width: usize,
    /// As wide as its widest cell, rather than letting a long one push the others aside.
    grows: bool,
}

/// A column that long cells run out of.
pub(super) const fn fixed(heading: &'static str, width: usize) -> Column {
    Column {
        heading,
        width,
        grows: false,
    }
}

/// A column that is as wide as its widest cell.
pub(super) const fn growing(heading: &'static str, width: usize) -> Column {
    Column {
        heading,
        width,
        grows: true,
    }
}

/// Lays out rows under their headings: cells are filled up to the column's width and joined with a blank.
///
/// The last column is filled up too where it has a width; Kafka's tools leave such blanks at the ends of lines.
pub(super) fn lines(columns: &[Column], rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            match column.grows {
                true => column.width.max(widest),
                false => column.width,
            }
        })
        .collect();
    let lay = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<String>>().join(" ")
    };
    let headings = lay(&mut columns.iter().map(|column| column.heading));
    let rows = rows
        .iter()
        .map(|row| lay(&mut row.iter().map(String::as_str)));
    std::iter::once(headings).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_cells_are_filled_up_and_long_ones_run_over_or_widen_the_column() {
        let columns = [growing("A", 3), fixed("B", 3), fixed("C", 0)];
        let rows = [
            vec!["1".to_owned(), "2".to_owned(), "3".to_owned()],
            vec!["first".to_owned(), "second".to_owned(), "third".to_owned()],
        ];
        assert_eq!(
            lines(&columns, &rows),
            ["A     B   C", "1     2   3", "first second third"]
        );
    }
}
