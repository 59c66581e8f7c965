// Writes what fields and enum values the messages of Envoy's API have, one message a line, as of the version in go.mod:
// the newest published before Envoy 1.34.0 (February and April 2025). Fields are name=number, with the type of messages
// and enums. `make envoy-fields` keeps it where the tests find it.
package main

import (
	"fmt"
	"sort"
	"strings"

	_ "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

var lines []string

func enums(all protoreflect.EnumDescriptors) {
	for i := 0; i < all.Len(); i++ {
		var values []string
		for j := 0; j < all.Get(i).Values().Len(); j++ {
			value := all.Get(i).Values().Get(j)
			values = append(values, fmt.Sprintf("%s=%d", value.Name(), value.Number()))
		}
		lines = append(lines, fmt.Sprintf("enum %s %s", all.Get(i).FullName(), strings.Join(values, " ")))
	}
}

func typeOf(field protoreflect.FieldDescriptor) string {
	if field.Message() != nil {
		return fmt.Sprintf(":%s", field.Message().FullName())
	}
	if field.Enum() != nil {
		return fmt.Sprintf(":%s", field.Enum().FullName())
	}
	return ""
}

func messages(all protoreflect.MessageDescriptors) {
	for i := 0; i < all.Len(); i++ {
		message := all.Get(i)
		var fields []string
		for j := 0; j < message.Fields().Len(); j++ {
			field := message.Fields().Get(j)
			fields = append(fields, fmt.Sprintf("%s=%d%s", field.Name(), field.Number(), typeOf(field)))
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("message %s %s", message.FullName(), strings.Join(fields, " "))))
		enums(message.Enums())
		messages(message.Messages())
	}
}

func main() {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(file.Package()), "envoy.") && !strings.HasPrefix(string(file.Package()), "envoy.annotations") {
			enums(file.Enums())
			messages(file.Messages())
		}
		return true
	})
	sort.Strings(lines)
	fmt.Println(strings.Join(lines, "\n"))
}
