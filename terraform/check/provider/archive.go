package provider

import (
	"archive/zip"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// zipFile executes the data source archive_file with source blocks: it writes the zip archive. Equal sources give equal
// bytes. A relative output path begins at dir.
func zipFile(dir string, o map[string]tftypes.Value) (map[string]any, error) {
	if text(o, "type") != "zip" {
		return nil, fmt.Errorf("archive type %q: only zip is supported here", text(o, "type"))
	}
	var blocks []tftypes.Value
	if err := o["source"].As(&blocks); err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		return nil, errors.New("only source blocks are supported here, and there are none")
	}
	content := map[string]string{}
	var names []string
	for _, b := range blocks {
		var source map[string]tftypes.Value
		if err := b.As(&source); err != nil {
			return nil, err
		}
		name := text(source, "filename")
		if _, twice := content[name]; twice {
			return nil, fmt.Errorf("%s is in the archive twice", name)
		}
		content[name] = text(source, "content")
		names = append(names, name)
	}
	slices.Sort(names)
	var buf bytes.Buffer
	zw := zip.NewWriter(&buf)
	for _, name := range names {
		w, err := zw.Create(name)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(content[name])); err != nil {
			return nil, err
		}
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	out := text(o, "output_path")
	if !filepath.IsAbs(out) {
		out = filepath.Join(dir, out)
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(out, buf.Bytes(), 0o644); err != nil {
		return nil, err
	}
	sum, md5sum := sha256.Sum256(buf.Bytes()), md5.Sum(buf.Bytes())
	return map[string]any{
		"id": hex.EncodeToString(sum[:20]), "output_size": int64(buf.Len()),
		"output_sha256": hex.EncodeToString(sum[:]), "output_base64sha256": base64.StdEncoding.EncodeToString(sum[:]),
		"output_md5": hex.EncodeToString(md5sum[:]),
	}, nil
}
