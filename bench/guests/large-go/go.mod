module large-go

go 1.24
