// Command environment writes terraform/environment.json, the list of changeable settings of each part. Terraform refuses
// settings outside of the list, so a misspelt setting is an error.
//
//	go run ./terraform/check/environment > terraform/environment.json
//
// The tests of package check cover the command: they compare environment.json with the parts.
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
