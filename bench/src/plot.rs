//! A plot of ratios and targets.

use std::fmt::Write as _;

use crate::report::number;
use crate::row::{Row, Target};

const LABELS_WIDTH: f64 = 330.0;
const PLOT_WIDTH: f64 = 380.0;
const RIGHT_WIDTH: f64 = 70.0;
const LINE_HEIGHT: f64 = 26.0;
const TOP: f64 = 58.0;
/// Left end of the logarithmic axis, and its length in powers of ten.
const AXIS_FROM: f64 = 0.001;
const AXIS_DECADES: f64 = 3.5;

/// One line for each row with a target: a bar up to the ratio, and a tick at the target. Colours follow
/// the reader's light or dark scheme.
pub(crate) fn svg(rows: &[Row]) -> String {
    let rows: Vec<(&Row, Target)> = rows.iter().filter_map(|row| Some((row, row.target?))).collect();
    let width = LABELS_WIDTH + PLOT_WIDTH + RIGHT_WIDTH;
    let height = TOP + LINE_HEIGHT * rows.len() as f64 + 14.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"Ratios of Cardan to its peers, with targets\">\n<style>{STYLE}</style>\n"
    );
    let _ = writeln!(out, "<text x=\"12\" y=\"20\">ratio to the peer, logarithmic; | is the target</text>");
    for (value, label) in [(0.001, "0.001"), (0.01, "0.01"), (0.1, "0.1"), (1.0, "1")] {
        let x = position(value);
        let _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            TOP - 10.0,
            height - 10.0,
            TOP - 16.0,
        );
    }
    for (line, (row, target)) in rows.iter().enumerate() {
        bar(&mut out, TOP + LINE_HEIGHT * line as f64, row, *target);
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, top: f64, row: &Row, target: Target) {
    let met = row.met() == Some(true);
    let (class, verdict) = if met { ("met", "met") } else { ("missed", "missed") };
    let (end, aim) = (position(row.ratio()), position(target.value()));
    let baseline = top + 13.0;
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\">{}</text>\
         <rect class=\"{class}\" x=\"{LABELS_WIDTH}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"17\" rx=\"2\"/>\
         <line class=\"aim\" x1=\"{aim:.1}\" x2=\"{aim:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"small\" x=\"{:.1}\" y=\"{baseline:.1}\">{} {verdict}</text>",
        LABELS_WIDTH - 8.0,
        escape(&row.name),
        (end - LABELS_WIDTH).max(1.0),
        top - 3.0,
        top + 20.0,
        end.max(aim) + 6.0,
        number(row.ratio()),
    );
}

fn position(ratio: f64) -> f64 {
    let decades = (ratio / AXIS_FROM).log10().clamp(0.0, AXIS_DECADES);
    LABELS_WIDTH + PLOT_WIDTH * decades / AXIS_DECADES
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.small{font-size:11px;fill:#57606a}\
.grid{stroke:#d0d7de}.aim{stroke:#24292f;stroke-width:2.5}\
.met{fill:#4493f8}.missed{fill:none;stroke:#d1242f;stroke-width:2}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.grid{stroke:#3d444d}\
.aim{stroke:#e6edf3}.missed{stroke:#f85149}}";
