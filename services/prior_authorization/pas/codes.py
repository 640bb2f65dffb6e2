"""The names of PAS 2.2.1: profiles, extensions and code systems, each in one place."""

from __future__ import annotations

from enum import StrEnum

PAS = "http://hl7.org/fhir/us/davinci-pas/StructureDefinition/"
PAS_CODES = "http://hl7.org/fhir/us/davinci-pas/CodeSystem/PASTempCodes"

REQUEST_BUNDLE = PAS + "profile-pas-request-bundle"
INQUIRY_BUNDLE = PAS + "profile-pas-inquiry-request-bundle"
CLAIM = PAS + "profile-claim"
CLAIM_UPDATE = PAS + "profile-claim-update"
CLAIM_INQUIRY = PAS + "profile-claim-inquiry"
BENEFICIARY = PAS + "profile-beneficiary"
COVERAGE = PAS + "profile-coverage"
INSURER = PAS + "profile-insurer"
ORGANIZATION = PAS + "profile-organization"
REQUESTOR = PAS + "profile-requestor"
SERVICE_REQUEST = PAS + "profile-servicerequest"
MEDICATION_REQUEST = PAS + "profile-medicationrequest"
DEVICE_REQUEST = PAS + "profile-devicerequest"
DOCUMENT_REFERENCE = PAS + "profile-documentreference"
SUBSCRIPTION = PAS + "profile-subscription"
CLAIM_RESPONSE = PAS + "profile-claimresponse"
RESPONSE_BUNDLE = PAS + "profile-pas-response-bundle"
INQUIRY_RESPONSE_BUNDLE = PAS + "profile-pas-inquiry-response-bundle"
TASK = PAS + "profile-task"

CERTIFICATION_TYPE = PAS + "extension-certificationType"
REQUEST_TYPE = PAS + "extension-serviceItemRequestType"
LEVEL_OF_SERVICE = PAS + "extension-levelOfServiceCode"
REQUESTED_SERVICE = PAS + "extension-requestedService"
INFO_CHANGED = PAS + "extension-infoChanged"
INFO_CANCELLED = PAS + "modifierextension-infoCancelled"
CARE_TEAM_SCOPE = PAS + "extension-careTeamClaimScope"
DOCUMENT_INFORMATION = PAS + "extension-documentInformation"
REVIEW_ACTION = PAS + "extension-reviewAction"
REVIEW_ACTION_CODE = PAS + "extension-reviewActionCode"
ITEM_ISSUE_DATE = PAS + "extension-itemPreAuthIssueDate"
ITEM_PERIOD = PAS + "extension-itemPreAuthPeriod"
ITEM_DETAIL = PAS + "extension-itemAuthorizedDetail"
AUTHORIZATION_NUMBER = PAS + "extension-authorizationNumber"
ADMINISTRATION_REFERENCE = PAS + "extension-administrationReferenceNumber"
REVIEWER = PAS + "extension-claimResponseReviewer"
ERROR_ELEMENT = PAS + "extension-errorElement"
ERROR_PATH = PAS + "extension-errorPath"
ERROR_FOLLOW_UP = PAS + "extension-errorFollowupAction"
SERVICE_LINE = PAS + "extension-serviceLineNumber"
SERVICE_LINE_BEFORE = PAS + "extension-paLineNumber"
"""What ``SERVICE_LINE`` was called before PAS 2.1."""
CONTENT_MODIFIER = PAS + "extension-contentModifier"

TOPIC = "http://hl7.org/fhir/us/davinci-pas/SubscriptionTopic/PASSubscriptionTopic"
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
PAYLOAD_CONTENT = BACKPORT + "backport-payload-content"
FILTER_CRITERIA = BACKPORT + "backport-filter-criteria"

X12_REVIEW_ACTION = "https://codesystem.x12.org/005010/306"
X12_REASON = "https://codesystem.x12.org/external/886"
X12_REJECT = "https://codesystem.x12.org/005010/901"
X12_FOLLOW_UP = "https://codesystem.x12.org/005010/889"
X12_SERVICE_TYPE = "https://codesystem.x12.org/005010/1365"
X12_CERTIFICATION_TYPE = "https://codesystem.x12.org/005010/1322"
X12_REQUEST_CATEGORY = "https://codesystem.x12.org/005010/1525"
X12_LEVEL_OF_SERVICE = "https://codesystem.x12.org/005010/1338"
X12_ENTITY = "https://codesystem.x12.org/005010/98"
X12_UNIT = "https://codesystem.x12.org/005010/673"
X12_REPORT_TYPE = "https://codesystem.x12.org/005010/755"
X12_TRANSMISSION = "https://codesystem.x12.org/005010/756"
X12_RELATIONSHIP = "https://codesystem.x12.org/005010/1069"

LOINC = "http://loinc.org"
QUESTIONNAIRE_FORM = "102089-0"
"""LOINC: by this code a payer asks for an answered questionnaire."""

NPI = "http://hl7.org/fhir/sid/us-npi"
ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
PLACE_OF_SERVICE = "https://www.cms.gov/Medicare/Coding/place-of-service-codes/Place_of_Service_Code_Set"
DOCUMENT_CATEGORY = "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category"
ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
THO = "http://terminology.hl7.org/CodeSystem/"

CLAIM_SYSTEM = "urn:carerelay:claim"
TRANSACTION_SYSTEM = "urn:carerelay:transaction"
COVERAGE_SYSTEM = "urn:carerelay:coverage"
PAYER_SYSTEM = "urn:carerelay:payer"

SERVICE_SYSTEMS = frozenset(
    {
        X12_SERVICE_TYPE,
        "http://www.ama-assn.org/go/cpt",
        "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
        "http://terminology.hl7.org/CodeSystem/icd9cm",
        "http://www.cms.gov/Medicare/Coding/ICD10",
        "http://hl7.org/fhir/sid/ndc",
    }
)
"""The systems of the value set X12278RequestedServiceType, to which productOrService is bound."""

DIAGNOSIS_SYSTEMS = frozenset({ICD10CM, "http://terminology.hl7.org/CodeSystem/icd9cm"})
"""The systems of X12278DiagnosisCodes that a referral's diagnoses can have."""


class Certification(StrEnum):
    """X12 1322, certification type."""

    INITIAL = "I"
    RENEWAL = "R"
    APPEAL_IMMEDIATE = "1"
    APPEAL_STANDARD = "2"
    CANCEL = "3"
    EXTENSION = "4"
    REVISED = "S"
