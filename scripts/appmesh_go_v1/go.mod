module meshlog.invalid/appmesh_go_v1

go 1.26.8

require github.com/aws/aws-sdk-go v1.55.8

require github.com/jmespath/go-jmespath v0.4.0 // indirect
