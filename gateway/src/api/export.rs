//! The audit log as a table for a spreadsheet.

use crate::app::App;
use crate::auth::Admin;
use crate::clock::rfc3339;
use crate::store::{AuditView, StoreError};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use std::sync::Arc;

/// Rows fetched at once.
const PIECE: u32 = 1000;
/// A mark by which spreadsheets know the encoding, and the names of the columns.
const HEAD: &str = "\u{feff}id,at,event,user,address,detail\r\n";

enum Next {
    Head,
    Before(Option<i64>),
    End,
}

/// The whole audit log, newest first.
#[utoipa::path(get, path = "/audit.csv", tag = "status", responses((status = 200), (status = 403)))]
pub(crate) async fn audit(State(app): State<Arc<App>>, _admin: Admin) -> Response {
    let pieces = stream::try_unfold((app, Next::Head), |(app, next)| async move {
        let before = match next {
            Next::Head => {
                return Ok(Some((Bytes::from(HEAD), (app, Next::Before(None)))));
            }
            Next::Before(before) => before,
            Next::End => return Ok(None),
        };
        let rows = app.store.audit_entries(before, PIECE).await?;
        let is_full = u32::try_from(rows.len()).is_ok_and(|count| count == PIECE);
        let next = match rows.last() {
            Some(last) if is_full => Next::Before(Some(last.id)),
            _ => Next::End,
        };
        let text: String = rows.iter().map(line).collect();
        Ok::<_, StoreError>(Some((Bytes::from(text), (app, next))))
    });
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (
            CONTENT_DISPOSITION,
            "attachment; filename=\"sentinel-audit.csv\"",
        ),
    ];
    (headers, Body::from_stream(pieces)).into_response()
}

fn line(row: &AuditView) -> String {
    let cells = [
        row.id.to_string(),
        rfc3339(row.at),
        row.event.clone(),
        row.user.clone().unwrap_or_default(),
        row.address.clone().unwrap_or_default(),
        row.detail.clone().unwrap_or_default(),
    ];
    cells.map(|text| cell(&text)).join(",") + "\r\n"
}

/// A quoted cell. Spreadsheets take what begins with certain characters for a formula, and what
/// strangers typed as their name stands here too; an apostrophe makes it text.
pub(super) fn cell(text: &str) -> String {
    let is_formula = text.trim_start().starts_with([
        '=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
    ]) || text.starts_with(['\t', '\r', '\n']);
    let mark = if is_formula { "'" } else { "" };
    format!("\"{mark}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_or_leaves_its_place() {
        for (text, expected) in [
            ("anna", "\"anna\""),
            ("", "\"\""),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" =1", "\"' =1\""),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\"'\r=1\""),
            ("＝1", "\"'＝1\""),
            ("a=1", "\"a=1\""),
            ("say \"hi\",=1", "\"say \"\"hi\"\",=1\""),
            ("two\r\n=lines", "\"two\r\n=lines\""),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }
}
