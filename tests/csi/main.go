// Command csi is a CSI driver that keeps volumes and snapshots in directories, for tests.
//
// A volume is a directory that is bind-mounted into pods, a snapshot a copy of one. All state lies in one directory of
// the machine (see storage.go), so that a test looks at what there is, says how calls behave, and gives two clusters
// the same storage: each has a driver of its own.
//
// go.mod here and in provisioner/ also pin the sidecars that run beside it, as `tool`.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	var (
		name     = flag.String("name", "dir.csi.ark.test", "name of the driver")
		socket   = flag.String("socket", "", "Unix socket to serve CSI on")
		root     = flag.String("storage", "", "directory that holds volumes and snapshots")
		register = flag.String("register", "", "directory where a kubelet looks for plugins; empty without a node")
		node     = flag.String("node", "", "name of the node")
		groups   = flag.Bool("group-snapshots", true, "offer snapshots of several volumes at one instant")
	)
	flag.Parse()
	if err := run(*name, *socket, *root, *register, *node, *groups); err != nil {
		log.Fatal(err)
	}
}

func run(name, socket, root, register, node string, groups bool) error {
	storage, err := openStorage(root)
	if err != nil {
		return err
	}
	driver := grpc.NewServer(grpc.UnaryInterceptor(logCalls))
	csi.RegisterIdentityServer(driver, identity{name: name, groups: groups})
	csi.RegisterControllerServer(driver, controller{storage: storage})
	if groups {
		csi.RegisterGroupControllerServer(driver, groupController{storage: storage})
	}
	csi.RegisterNodeServer(driver, nodeServer{storage: storage, node: node})

	ended := make(chan error, 2)
	if err := serve(driver, socket, ended); err != nil {
		return err
	}
	if register != "" {
		server := grpc.NewServer(grpc.UnaryInterceptor(logCalls))
		registration.RegisterRegistrationServer(server, registrar{name: name, socket: socket})
		path := filepath.Join(register, name+"-reg.sock")
		if err := serve(server, path, ended); err != nil {
			return err
		}
		// The kubelet forgets a driver whose socket is gone.
		defer os.Remove(path)
	}

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err := <-ended:
		return err
	case <-signals:
		return nil
	}
}

// serve listens on a Unix socket and answers in the background.
func serve(server *grpc.Server, path string, ended chan<- error) error {
	// What a driver that was killed left behind.
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listening on %s (%d characters; Unix allows about 100): %w", path, len(path), err)
	}
	go func() { ended <- server.Serve(listener) }()
	return nil
}

// logCalls writes a line for each call. Requests are left out: they may hold secrets.
func logCalls(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, request)
	method := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	if err != nil {
		log.Printf("%s: %v", method, err)
	} else if method != "Probe" {
		log.Printf("%s: %v", method, answer)
	}
	return answer, err
}

type identity struct {
	csi.UnimplementedIdentityServer
	name   string
	groups bool
}

func (i identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: i.name, VendorVersion: "test"}, nil
}

func (i identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	services := []csi.PluginCapability_Service_Type{csi.PluginCapability_Service_CONTROLLER_SERVICE}
	if i.groups {
		services = append(services, csi.PluginCapability_Service_GROUP_CONTROLLER_SERVICE)
	}
	answer := &csi.GetPluginCapabilitiesResponse{}
	for _, service := range services {
		answer.Capabilities = append(answer.Capabilities, &csi.PluginCapability{
			Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: service}},
		})
	}
	return answer, nil
}

func (identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}
