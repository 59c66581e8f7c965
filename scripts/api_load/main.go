// Callers of an App Mesh API, in closed loops: each sends its next call when it has its last answer. Rounds are told on
// stdin as JSON lines, each is answered by one on stdout:
//
//	{"op": "create"|"describe", "callers": 16, "seconds": 4, "urls": […], "mesh": …, "prefix": …}
//	→ {"latencies_us": […], "took_s": …, "cpu_s": …, "errors": {code: count}}
//
// A create makes a virtual node of a name of its own; a describe asks for the node `prefix`. Callers are spread over
// the urls; connections are kept, nothing is retried. Requests are signed by aws-sdk-go-v2's signer, answers are read
// and not decoded: what any SDK's own part in a call costs is left out, and the SDK takes not all servers' answers.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

type round struct {
	Op      string   `json:"op"`
	Callers int      `json:"callers"`
	Seconds float64  `json:"seconds"`
	URLs    []string `json:"urls"`
	Mesh    string   `json:"mesh"`
	Prefix  string   `json:"prefix"`
}

type figures struct {
	LatenciesUs []int64        `json:"latencies_us"`
	TookS       float64        `json:"took_s"`
	CPUS        float64        `json:"cpu_s"`
	Errors      map[string]int `json:"errors"`
}

var (
	key = aws.Credentials{
		AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
	}
	region = os.Getenv("AWS_REGION")
	signer = v4.NewSigner()
	client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
)

func main() {
	lines, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked round
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			log.Fatal(err)
		}
		if err := answers.Encode(run(asked)); err != nil {
			log.Fatal(err)
		}
	}
}

func run(asked round) figures {
	found := figures{LatenciesUs: []int64{}, Errors: map[string]int{}}
	var together sync.Mutex
	var callers sync.WaitGroup
	before, began := cpu(), time.Now()
	end := began.Add(time.Duration(asked.Seconds * float64(time.Second)))
	for caller := range asked.Callers {
		callers.Go(func() {
			own, failed := loop(asked, caller, end)
			together.Lock()
			defer together.Unlock()
			found.LatenciesUs = append(found.LatenciesUs, own...)
			for code, count := range failed {
				found.Errors[code] += count
			}
		})
	}
	callers.Wait()
	found.TookS, found.CPUS = time.Since(began).Seconds(), cpu()-before
	return found
}

func loop(asked round, caller int, end time.Time) ([]int64, map[string]int) {
	latencies, failed := []int64{}, map[string]int{}
	for number := 0; ; number++ {
		began := time.Now()
		if began.After(end) {
			return latencies, failed
		}
		if code := call(request(asked, caller, number)); code == "" {
			latencies = append(latencies, time.Since(began).Microseconds())
		} else {
			failed[code]++
		}
	}
}

func request(asked round, caller, number int) *http.Request {
	target := asked.URLs[caller%len(asked.URLs)] + "/v20190125/meshes/" + asked.Mesh + "/virtualNodes"
	method, body := http.MethodGet, []byte{}
	if asked.Op == "create" {
		method, body = http.MethodPut, node(fmt.Sprintf("%s-%d-%d", asked.Prefix, caller, number), number)
	} else {
		target += "/" + asked.Prefix
	}
	made, err := http.NewRequest(method, target, bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	made.Header.Set("Content-Type", "application/json")
	hash := sha256.Sum256(body)
	at := time.Now()
	if err := signer.SignHTTP(context.Background(), key, made, hex.EncodeToString(hash[:]), "appmesh", region, at); err != nil {
		log.Fatal(err)
	}
	return made
}

// The input of a virtual node's creation, small and usual.
func node(name string, number int) []byte {
	port := map[string]any{"port": 1024 + number%50000, "protocol": "http"}
	spec := map[string]any{
		"listeners":        []any{map[string]any{"portMapping": port}},
		"serviceDiscovery": map[string]any{"dns": map[string]any{"hostname": name + ".service.example.internal"}},
	}
	body, err := json.Marshal(map[string]any{"virtualNodeName": name, "spec": spec, "clientToken": token(name)})
	if err != nil {
		log.Fatal(err)
	}
	return body
}

func token(name string) string {
	hash := sha256.Sum256([]byte(name))
	return hex.EncodeToString(hash[:16])
}

// The error's code, or "" for a success, once the whole answer is here.
func call(made *http.Request) string {
	answer, err := client.Do(made)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err.Error()
	}
	if answer.StatusCode == http.StatusOK {
		return ""
	}
	return fmt.Sprintf("%d %s", answer.StatusCode, answer.Header.Get("x-amzn-ErrorType"))
}

func cpu() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}
