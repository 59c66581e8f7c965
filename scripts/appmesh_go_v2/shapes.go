// Between JSON, as botocore writes it, and the SDK's structs.
package main

import (
	"encoding/json"
	"log"
	"reflect"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/appmesh/types"
	"github.com/aws/smithy-go/middleware"
)

// The members of every union. In Go a union is an interface, and a member one of the types that fit it.
var members = []any{
	&types.AccessLogMemberFile{},
	&types.BackendMemberVirtualService{},
	&types.ClientTlsCertificateMemberFile{}, &types.ClientTlsCertificateMemberSds{},
	&types.GrpcMetadataMatchMethodMemberExact{}, &types.GrpcMetadataMatchMethodMemberPrefix{},
	&types.GrpcMetadataMatchMethodMemberRange{}, &types.GrpcMetadataMatchMethodMemberRegex{},
	&types.GrpcMetadataMatchMethodMemberSuffix{},
	&types.GrpcRouteMetadataMatchMethodMemberExact{}, &types.GrpcRouteMetadataMatchMethodMemberPrefix{},
	&types.GrpcRouteMetadataMatchMethodMemberRange{}, &types.GrpcRouteMetadataMatchMethodMemberRegex{},
	&types.GrpcRouteMetadataMatchMethodMemberSuffix{},
	&types.HeaderMatchMethodMemberExact{}, &types.HeaderMatchMethodMemberPrefix{},
	&types.HeaderMatchMethodMemberRange{}, &types.HeaderMatchMethodMemberRegex{},
	&types.HeaderMatchMethodMemberSuffix{},
	&types.ListenerTimeoutMemberGrpc{}, &types.ListenerTimeoutMemberHttp{},
	&types.ListenerTimeoutMemberHttp2{}, &types.ListenerTimeoutMemberTcp{},
	&types.ListenerTlsCertificateMemberAcm{}, &types.ListenerTlsCertificateMemberFile{},
	&types.ListenerTlsCertificateMemberSds{},
	&types.ListenerTlsValidationContextTrustMemberFile{}, &types.ListenerTlsValidationContextTrustMemberSds{},
	&types.LoggingFormatMemberJson{}, &types.LoggingFormatMemberText{},
	&types.ServiceDiscoveryMemberAwsCloudMap{}, &types.ServiceDiscoveryMemberDns{},
	&types.TlsValidationContextTrustMemberAcm{}, &types.TlsValidationContextTrustMemberFile{},
	&types.TlsValidationContextTrustMemberSds{},
	&types.VirtualGatewayAccessLogMemberFile{},
	&types.VirtualGatewayClientTlsCertificateMemberFile{}, &types.VirtualGatewayClientTlsCertificateMemberSds{},
	&types.VirtualGatewayConnectionPoolMemberGrpc{}, &types.VirtualGatewayConnectionPoolMemberHttp{},
	&types.VirtualGatewayConnectionPoolMemberHttp2{},
	&types.VirtualGatewayListenerTlsCertificateMemberAcm{}, &types.VirtualGatewayListenerTlsCertificateMemberFile{},
	&types.VirtualGatewayListenerTlsCertificateMemberSds{},
	&types.VirtualGatewayListenerTlsValidationContextTrustMemberFile{},
	&types.VirtualGatewayListenerTlsValidationContextTrustMemberSds{},
	&types.VirtualGatewayTlsValidationContextTrustMemberAcm{},
	&types.VirtualGatewayTlsValidationContextTrustMemberFile{},
	&types.VirtualGatewayTlsValidationContextTrustMemberSds{},
	&types.VirtualNodeConnectionPoolMemberGrpc{}, &types.VirtualNodeConnectionPoolMemberHttp{},
	&types.VirtualNodeConnectionPoolMemberHttp2{}, &types.VirtualNodeConnectionPoolMemberTcp{},
	&types.VirtualServiceProviderMemberVirtualNode{}, &types.VirtualServiceProviderMemberVirtualRouter{},
}

var metadata = reflect.TypeFor[middleware.Metadata]()

func decode(value any, into reflect.Value) {
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		decode(value, into.Elem())
	case reflect.Struct:
		for name, each := range value.(map[string]any) {
			field := into.FieldByName(strings.ToUpper(name[:1]) + name[1:])
			if !field.IsValid() {
				log.Fatalf("%s has no member %s", into.Type(), name)
			}
			decode(each, field)
		}
	case reflect.Slice:
		list := value.([]any)
		into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
		for index, each := range list {
			decode(each, into.Index(index))
		}
	case reflect.Interface:
		for name, each := range value.(map[string]any) {
			member := reflect.New(member(into.Type(), name))
			decode(each, member.Elem().FieldByName("Value"))
			into.Set(member)
		}
	case reflect.String:
		into.SetString(value.(string))
	case reflect.Bool:
		into.SetBool(value.(bool))
	case reflect.Int32, reflect.Int64:
		number, err := value.(json.Number).Int64()
		if err != nil {
			log.Fatal(err)
		}
		into.SetInt(number)
	default:
		log.Fatalf("no rule for %s", into.Type())
	}
}

func member(union reflect.Type, name string) reflect.Type {
	for _, each := range members {
		if kind := reflect.TypeOf(each); kind.Implements(union) && memberName(kind) == name {
			return kind.Elem()
		}
	}
	log.Fatalf("%s has no member %s", union, name)
	return nil
}

func memberName(kind reflect.Type) string {
	_, name, _ := strings.Cut(kind.Elem().Name(), "Member")
	return strings.ToLower(name[:1]) + name[1:]
}

// Absent values (nil, and the empty string that stands for an unset enum) are left out; empty lists are not.
func encode(value reflect.Value) any {
	switch value.Kind() {
	case reflect.Pointer:
		return encode(value.Elem())
	case reflect.Interface:
		kind := value.Elem().Type()
		return map[string]any{memberName(kind): encode(value.Elem().Elem().FieldByName("Value"))}
	case reflect.Struct:
		if at, ok := value.Interface().(time.Time); ok {
			return float64(at.UnixMicro()) / 1e6
		}
		found := map[string]any{}
		for index := range value.NumField() {
			field, kind := value.Field(index), value.Type().Field(index)
			if kind.IsExported() && kind.Type != metadata && !absent(field) {
				found[strings.ToLower(kind.Name[:1])+kind.Name[1:]] = encode(field)
			}
		}
		return found
	case reflect.Slice:
		list := make([]any, value.Len())
		for index := range list {
			list[index] = encode(value.Index(index))
		}
		return list
	case reflect.String:
		return value.String()
	case reflect.Bool:
		return value.Bool()
	default:
		return value.Int()
	}
}

func absent(field reflect.Value) bool {
	switch field.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice:
		return field.IsNil()
	case reflect.String:
		return field.Len() == 0
	default:
		return false
	}
}
