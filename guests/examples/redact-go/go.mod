module redact

go 1.24
