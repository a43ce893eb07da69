// Command environment writes terraform/environment.json: which settings of each part a deployment may change. Terraform
// refuses others, so that a misspelt one is not silently without effect.
//
//	go run ./terraform/check/environment > terraform/environment.json
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"parley.internal/terraform/check/parts"
)

func main() {
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	if err := enc.Encode(parts.Settable()); err != nil {
		fmt.Fprintln(os.Stderr, "environment:", err)
		os.Exit(1)
	}
}
