"""A virtual machine as the API shows it."""

from __future__ import annotations

from harness.cloudstack.api.lookup import Json, clean, tags_of, time, zone_of
from harness.cloudstack.records import Transaction
from harness.cloudstack.records.rows import GuestOs, HostRow, Nic, ServiceOffering, Template, Vm, Volume

FIELDS = (
    "id:string name:string displayname:string instancename:string state:string hostid:string hostname:string"
    " zoneid:string zonename:string templateid:string templatename:string serviceofferingid:string"
    " serviceofferingname:string cpunumber:integer cpuspeed:integer memory:integer guestosid:string ostypeid:string"
    " hypervisor:string created:date haenable:boolean passwordenabled:boolean displayvm:boolean rootdeviceid:long"
    " rootdevicetype:string ipaddress:string nic:set account:string domain:string domainid:string tags:set"
    " securitygroup:set affinitygroup:set isoid:string isoname:string isodisplaytext:string details:map"
    " password:string publicip:string"
)
NETWORK = "guest"
"""The only guest network."""


def virtual_machine(tx: Transaction, row: Vm, common: Json) -> Json:
    offering = tx.get(ServiceOffering, row.service_offering_id)
    template = None if row.vm_template_id is None else tx.find(Template, id=row.vm_template_id)
    host = None if row.host_id is None else tx.find(HostRow, id=row.host_id)
    os_type, place = tx.get(GuestOs, row.guest_os_id), zone_of(tx, row.data_center_id)
    iso = None if row.iso_id is None else tx.find(Template, id=row.iso_id)
    nics = tx.all(Nic, instance_id=row.id, removed=None)
    root = tx.find(Volume, instance_id=row.id, volume_type="ROOT", removed=None)
    return common | clean(
        id=row.uuid,
        name=row.name,
        displayname=row.display_name,
        instancename=row.instance_name,
        state=row.state.value,
        hostid=host and host.uuid,
        hostname=host and host.name,
        zoneid=place.uuid,
        zonename=place.name,
        templateid=template and template.uuid,
        templatename=template and template.name,
        isoid=iso and iso.uuid,
        isoname=iso and iso.name,
        isodisplaytext=iso and iso.display_text,
        serviceofferingid=offering.uuid,
        serviceofferingname=offering.name,
        cpunumber=offering.cpu,
        cpuspeed=offering.speed,
        memory=offering.ram_size,
        guestosid=os_type.uuid,
        ostypeid=os_type.uuid,
        hypervisor="KVM",
        created=time(row.created),
        haenable=offering.ha_enabled,
        passwordenabled=False,
        displayvm=True,
        rootdeviceid=root and root.device_id,
        rootdevicetype=root and "ROOT",
        ipaddress=nics[0].ip4_address if nics else None,
        nic=[_nic(nic, place.uuid) for nic in nics],
        securitygroup=[],
        affinitygroup=[],
        details=tx.details("user_vm_details", row.id) or None,
        tags=tags_of(tx, "UserVm", row.uuid),
    )


def _nic(nic: Nic, network_id: str) -> Json:
    return {
        "id": nic.uuid,
        "ipaddress": nic.ip4_address,
        "macaddress": nic.mac_address,
        "networkid": network_id,
        "networkname": NETWORK,
        "type": "Shared",
        "traffictype": "Guest",
        "isdefault": True,
        "deviceid": str(nic.device_id),
    }
