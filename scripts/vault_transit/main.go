// Vault's own Transit engine behind a few lines of HTTP, in memory: what tests/eventlog/keys is checked against.
// It is not a Vault server: no seal, no policies, no namespaces, one token.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/logical"
)

func main() {
	ctx, storage := context.Background(), &logical.InmemStorage{}
	backend, err := transit.Factory(ctx, &logical.BackendConfig{StorageView: storage, System: logical.TestSystemView()})
	if err != nil {
		log.Fatal(err)
	}
	token := os.Getenv("TRANSIT_TOKEN")
	handle := func(w http.ResponseWriter, r *http.Request) {
		path, found := strings.CutPrefix(r.URL.Path, "/v1/transit/")
		switch {
		case r.Header.Get("X-Vault-Token") != token:
			refuse(w, http.StatusForbidden, "permission denied")
			return
		case !found:
			refuse(w, http.StatusNotFound, "no handler for route \""+r.URL.Path+"\"")
			return
		}
		request := &logical.Request{Operation: logical.UpdateOperation, Path: path, Storage: storage, Data: map[string]any{}}
		if r.Method == http.MethodDelete {
			request.Operation = logical.DeleteOperation
		} else if err := json.NewDecoder(r.Body).Decode(&request.Data); err != nil {
			refuse(w, http.StatusBadRequest, "failed to parse JSON input")
			return
		}
		if checked, exists, err := backend.HandleExistenceCheck(ctx, request); err == nil && checked && !exists {
			// As for a token whose policy allows update, and not create, on transit/encrypt/NAME.
			if strings.HasPrefix(path, "encrypt/") {
				refuse(w, http.StatusForbidden, "permission denied")
				return
			}
			request.Operation = logical.CreateOperation
		}
		response, err := backend.HandleRequest(ctx, request)
		if status, failure := logical.RespondErrorCommon(request, response, err); failure != nil {
			refuse(w, status, failure.Error())
			return
		}
		data := map[string]any{}
		if response != nil {
			data = response.Data
		}
		json.NewEncoder(w).Encode(map[string]any{"data": data})
	}
	log.Fatal(http.ListenAndServe(os.Getenv("TRANSIT_LISTEN"), http.HandlerFunc(handle)))
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []string{text}})
}
