// An App Mesh client of aws-sdk-go-v2, the SDK of Terraform's AWS provider, that is told on stdin what to call.
//
// One JSON line in, one out:
//
//	{"op": "CreateMesh", "input": {…}}      → {"output": {…}}, or {"error": {code, message, type, fault, status, request_id}}
//	{"op": "ListMeshes", "input": {…}, "pages": true}      → {"pages": [{…}, …]}, by the SDK's own paginator
//
// Inputs and outputs are written as botocore writes them: the model's names, times as epoch seconds. Everything between
// is the SDK's: its types, serialisers, signer, error decoding. `sts:` before an operation calls STS. Endpoint, region
// and keys come from the environment (AWS_ENDPOINT_URL_APP_MESH …), as for any program of that SDK; nothing is retried.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/appmesh"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

type request struct {
	Op    string         `json:"op"`
	Input map[string]any `json:"input"`
	Pages bool           `json:"pages"`
}

// What a list operation's paginator is made by.
var paginators = map[string]any{
	"ListGatewayRoutes":   appmesh.NewListGatewayRoutesPaginator,
	"ListMeshes":          appmesh.NewListMeshesPaginator,
	"ListRoutes":          appmesh.NewListRoutesPaginator,
	"ListTagsForResource": appmesh.NewListTagsForResourcePaginator,
	"ListVirtualGateways": appmesh.NewListVirtualGatewaysPaginator,
	"ListVirtualNodes":    appmesh.NewListVirtualNodesPaginator,
	"ListVirtualRouters":  appmesh.NewListVirtualRoutersPaginator,
	"ListVirtualServices": appmesh.NewListVirtualServicesPaginator,
}

func main() {
	ctx := context.Background()
	settings, err := config.LoadDefaultConfig(ctx, config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))
	if err != nil {
		log.Fatal(err)
	}
	mesh, tokens := appmesh.NewFromConfig(settings), sts.NewFromConfig(settings)
	requests, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	requests.UseNumber() // a double would not hold every long
	for {
		var asked request
		if err := requests.Decode(&asked); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		var client any = mesh
		if name, found := strings.CutPrefix(asked.Op, "sts:"); found {
			client, asked.Op = tokens, name
		}
		if err := answers.Encode(answer(ctx, client, asked)); err != nil {
			log.Fatal(err)
		}
	}
}

func answer(ctx context.Context, client any, asked request) any {
	operation := reflect.ValueOf(client).MethodByName(asked.Op)
	if !operation.IsValid() {
		log.Fatalf("the SDK has no operation %s", asked.Op)
	}
	input := reflect.New(operation.Type().In(1).Elem())
	decode(asked.Input, input.Elem())
	if asked.Pages {
		return pages(ctx, client, asked.Op, input)
	}
	results := operation.Call([]reflect.Value{reflect.ValueOf(ctx), input})
	if err, failed := results[1].Interface().(error); failed {
		return map[string]any{"error": told(err)}
	}
	return map[string]any{"output": encode(results[0])}
}

func pages(ctx context.Context, client any, operation string, input reflect.Value) any {
	made := reflect.ValueOf(paginators[operation]).Call([]reflect.Value{reflect.ValueOf(client), input})[0]
	more, next := made.MethodByName("HasMorePages"), made.MethodByName("NextPage")
	found := []any{}
	for more.Call(nil)[0].Bool() {
		results := next.Call([]reflect.Value{reflect.ValueOf(ctx)})
		if err, failed := results[1].Interface().(error); failed {
			return map[string]any{"error": told(err)}
		}
		found = append(found, encode(results[0]))
	}
	return map[string]any{"pages": found}
}

// What the SDK made of an error. `type` is its Go type: a declared error has one of its own.
func told(err error) map[string]any {
	said := map[string]any{"message": err.Error()}
	var declared smithy.APIError
	if errors.As(err, &declared) {
		said["code"], said["message"] = declared.ErrorCode(), declared.ErrorMessage()
		said["type"], said["fault"] = fmt.Sprintf("%T", declared), declared.ErrorFault().String()
	}
	var answered *awshttp.ResponseError
	if errors.As(err, &answered) {
		said["status"], said["request_id"] = answered.HTTPStatusCode(), answered.ServiceRequestID()
	}
	return said
}
