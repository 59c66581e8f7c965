#!/usr/bin/env bash
# A mesh as walkthroughs of App Mesh make and remove one: deploy.sh [canary|delete]. Knows nothing of Meshlog.
set -e

DIR="$( cd "$( dirname "${BASH_SOURCE[0]}" )" >/dev/null && pwd )"
: "${AWS_DEFAULT_REGION:=us-west-2}"
if [ -z "${APPMESH_ENDPOINT}" ]; then
    appmesh_cmd="aws appmesh"
else
    appmesh_cmd="aws --endpoint-url ${APPMESH_ENDPOINT} appmesh"
fi

print() {
    printf "[%s] : %s\n" "$(date)" "$*"
}

err() {
    print "Error: $1"
    exit "${2:-1}"
}

sanity_check() {
    [ -n "${MESH_NAME}" ] || err "MESH_NAME is not set"
    account=$(aws sts get-caller-identity --query Account --output text) || err "Unable to find out the account"
    [ -z "${AWS_ACCOUNT_ID}" ] || [ "${account}" = "${AWS_ACCOUNT_ID}" ] || err "These credentials are of ${account}"
}

# save KIND OUTPUT-MEMBER FILE: update, and create where there is nothing to update.
save() {
    cli_input=$(sed "s/@@DOMAIN@@/${SERVICES_DOMAIN}/g" "${DIR}/mesh/$3")
    uid=$($appmesh_cmd "update-$1" --mesh-name "${MESH_NAME}" --cli-input-json "${cli_input}" \
        --query "$2.metadata.uid" --output text 2>/dev/null) || create "$@"
    print "--> $1 ${uid}"
}

create() {
    uid=$($appmesh_cmd "create-$1" --mesh-name "${MESH_NAME}" --cli-input-json "${cli_input}" \
        --query "$2.metadata.uid" --output text) || err "Unable to save $3" "$?"
}

deploy() {
    $appmesh_cmd create-mesh --mesh-name "${MESH_NAME}" --spec egressFilter={type=DROP_ALL} \
        --tags key=project,value=walkthrough key=owner,value= \
        --query mesh.metadata.uid --output text || print "The mesh is there already"
    save virtual-node virtualNode color-red.json
    save virtual-node virtualNode color-blue.json
    save virtual-node virtualNode front.json
    $appmesh_cmd create-virtual-router --mesh-name "${MESH_NAME}" --virtual-router-name color-router \
        --spec 'listeners=[{portMapping={port=8080,protocol=http}}]' --query virtualRouter.status.status --output text
    save route route color-route.json
    $appmesh_cmd create-virtual-service --mesh-name "${MESH_NAME}" \
        --virtual-service-name "color.${SERVICES_DOMAIN}" \
        --spec "provider={virtualRouter={virtualRouterName=color-router}}" --output json >/dev/null
    $appmesh_cmd create-virtual-gateway --mesh-name "${MESH_NAME}" --virtual-gateway-name front-gw \
        --cli-input-json "file://${DIR}/mesh/gateway.json" --output table >/dev/null
    cli_input=$(sed "s/@@DOMAIN@@/${SERVICES_DOMAIN}/g" "${DIR}/mesh/gateway-route.json")
    create gateway-route gatewayRoute gateway-route.json
}

# Reads the route's spec, changes its weights, and writes the rest back as it was.
canary() {
    spec=$(mktemp)
    $appmesh_cmd describe-route --mesh-name "${MESH_NAME}" --virtual-router-name color-router \
        --route-name color-route --query route.spec --output json |
        jq '.httpRoute.action.weightedTargets = [{virtualNode: "color-red", weight: 4}, {virtualNode: "color-blue", weight: 1}]' \
        > "${spec}"
    $appmesh_cmd update-route --mesh-name "${MESH_NAME}" --virtual-router-name color-router \
        --route-name color-route --client-token "canary-${RANDOM}" --spec "file://${spec}" \
        --query 'route.spec.httpRoute.action.weightedTargets[*].[virtualNode,weight]' --output text
    rm -f "${spec}"
}

delete() {
    for gateway in $($appmesh_cmd list-virtual-gateways --mesh-name "${MESH_NAME}" | jq -r '.virtualGateways[].virtualGatewayName'); do
        for route in $($appmesh_cmd list-gateway-routes --mesh-name "${MESH_NAME}" --virtual-gateway-name "${gateway}" \
            --query 'gatewayRoutes[].gatewayRouteName' --output text); do
            $appmesh_cmd delete-gateway-route --mesh-name "${MESH_NAME}" --virtual-gateway-name "${gateway}" \
                --gateway-route-name "${route}" --query gatewayRoute.status.status --output text
        done
        $appmesh_cmd delete-virtual-gateway --mesh-name "${MESH_NAME}" --virtual-gateway-name "${gateway}" >/dev/null
    done
    for service in $($appmesh_cmd list-virtual-services --mesh-name "${MESH_NAME}" | jq -r '.virtualServices[].virtualServiceName'); do
        $appmesh_cmd delete-virtual-service --mesh-name "${MESH_NAME}" --virtual-service-name "${service}" >/dev/null
    done
    for router in $($appmesh_cmd list-virtual-routers --mesh-name "${MESH_NAME}" | jq -r '.virtualRouters[].virtualRouterName'); do
        for route in $($appmesh_cmd list-routes --mesh-name "${MESH_NAME}" --virtual-router-name "${router}" | jq -r '.routes[].routeName'); do
            $appmesh_cmd delete-route --mesh-name "${MESH_NAME}" --virtual-router-name "${router}" --route-name "${route}" >/dev/null
        done
        $appmesh_cmd delete-virtual-router --mesh-name "${MESH_NAME}" --virtual-router-name "${router}" >/dev/null
    done
    # The CLI's own paginator, a page for each node.
    for node in $($appmesh_cmd list-virtual-nodes --mesh-name "${MESH_NAME}" --page-size 1 \
        --query 'virtualNodes[].virtualNodeName' --output text); do
        $appmesh_cmd delete-virtual-node --mesh-name "${MESH_NAME}" --virtual-node-name "${node}" >/dev/null
    done
    $appmesh_cmd delete-mesh --mesh-name "${MESH_NAME}" --query mesh.status.status --output text
}

sanity_check
case "${1:-deploy}" in
    deploy) deploy ;;
    canary) canary ;;
    delete) delete ;;
    *) err "no action $1" 2 ;;
esac
