// An App Mesh client of aws-sdk-go v1, the SDK of AWS's controller for Kubernetes, that is told on stdin what to call.
//
// One JSON line in, one out:
//
//	{"op": "CreateMesh", "input": {…}}      → {"output": {…}}, or {"error": {code, message, type, status, request_id}}
//	{"op": "ListMeshes", "input": {…}, "pages": true}      → {"pages": [{…}, …]}, by the SDK's own paginator
//
// Inputs and outputs are written as botocore writes them: the model's names, times as epoch seconds. Everything between
// is the SDK's: its types, serialisers, signer, error decoding. Region and keys come from the environment; nothing is
// retried. With AWS_ENDPOINT_URL_APP_MESH that endpoint is called. Without, the SDK calls appmesh.<region>.amazonaws.com
// over TLS, as the controller does, which has no option for it; APPMESH_ADDRESS then stands in for the DNS record of
// that name, and AWS_CA_BUNDLE has the root to trust.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"reflect"
	"time"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/awserr"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/appmesh"
)

type request struct {
	Op    string         `json:"op"`
	Input map[string]any `json:"input"`
	Pages bool           `json:"pages"`
}

func main() {
	settings := aws.NewConfig().WithMaxRetries(0).WithEndpoint(os.Getenv("AWS_ENDPOINT_URL_APP_MESH"))
	if address := os.Getenv("APPMESH_ADDRESS"); address != "" {
		dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		settings = settings.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial}})
	}
	client := appmesh.New(session.Must(session.NewSession(settings)))
	requests, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	requests.UseNumber() // a double would not hold every long
	for {
		var asked request
		if err := requests.Decode(&asked); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		if err := answers.Encode(answer(client, asked)); err != nil {
			log.Fatal(err)
		}
	}
}

func answer(client *appmesh.AppMesh, asked request) any {
	operation := reflect.ValueOf(client).MethodByName(asked.Op)
	if !operation.IsValid() {
		log.Fatalf("the SDK has no operation %s", asked.Op)
	}
	input := reflect.New(operation.Type().In(0).Elem())
	decode(asked.Input, input.Elem())
	if asked.Pages {
		return pages(client, asked.Op, input)
	}
	results := operation.Call([]reflect.Value{input})
	if err, failed := results[1].Interface().(error); failed {
		return map[string]any{"error": told(err)}
	}
	return map[string]any{"output": encode(results[0])}
}

func pages(client *appmesh.AppMesh, operation string, input reflect.Value) any {
	all := reflect.ValueOf(client).MethodByName(operation + "Pages")
	found := []any{}
	each := reflect.MakeFunc(all.Type().In(1), func(page []reflect.Value) []reflect.Value {
		found = append(found, encode(page[0]))
		return []reflect.Value{reflect.ValueOf(true)}
	})
	if err, failed := all.Call([]reflect.Value{input, each})[0].Interface().(error); failed {
		return map[string]any{"error": told(err)}
	}
	return map[string]any{"pages": found}
}

// What the SDK made of an error. `type` is its Go type: a declared error has one of its own.
func told(err error) map[string]any {
	said := map[string]any{"message": err.Error(), "type": fmt.Sprintf("%T", err)}
	var answered awserr.RequestFailure
	if errors.As(err, &answered) {
		said["code"], said["message"] = answered.Code(), answered.Message()
		said["status"], said["request_id"] = answered.StatusCode(), answered.RequestID()
	}
	return said
}

func decode(value any, into reflect.Value) {
	switch into.Kind() {
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		decode(value, into.Elem())
	case reflect.Struct:
		for name, each := range value.(map[string]any) {
			decode(each, member(into, name))
		}
	case reflect.Slice:
		list := value.([]any)
		into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
		for index, each := range list {
			decode(each, into.Index(index))
		}
	case reflect.Int64:
		number, err := value.(json.Number).Int64()
		if err != nil {
			log.Fatal(err)
		}
		into.SetInt(number)
	default:
		into.Set(reflect.ValueOf(value))
	}
}

func member(shape reflect.Value, name string) reflect.Value {
	for index := range shape.NumField() {
		if shape.Type().Field(index).Tag.Get("locationName") == name {
			return shape.Field(index)
		}
	}
	log.Fatalf("%s has no member %s", shape.Type(), name)
	return reflect.Value{}
}

// Absent values are left out; empty lists are not.
func encode(value reflect.Value) any {
	switch value.Kind() {
	case reflect.Pointer:
		return encode(value.Elem())
	case reflect.Struct:
		if at, ok := value.Interface().(time.Time); ok {
			return float64(at.UnixMicro()) / 1e6
		}
		found := map[string]any{}
		for index := range value.NumField() {
			field, name := value.Field(index), value.Type().Field(index).Tag.Get("locationName")
			if name != "" && !field.IsNil() {
				found[name] = encode(field)
			}
		}
		return found
	case reflect.Slice:
		list := make([]any, value.Len())
		for index := range list {
			list[index] = encode(value.Index(index))
		}
		return list
	default:
		return value.Interface()
	}
}
